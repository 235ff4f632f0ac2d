//! The arguments of a call.

use smallvec::SmallVec;

use crate::value::Value;

/// Positional arguments: a vector that has room for one without memory of its own, since most calls have none or one.
pub type Positional = SmallVec<[Value; 1]>;

/// Positional arguments, then named ones.
///
/// Made from nothing, an array, a vector, or step by step:
///
/// ```
/// use farref_host::{Args, Value};
///
/// let args = Args::from(["notes.txt"]).and(7).named("mode", "r");
/// assert_eq!(args.get(1), Some(&Value::Int(7)));
/// assert_eq!(args.get_named("mode").and_then(Value::as_str), Some("r"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Args {
    /// The positional ones.
    pub positional: Positional,
    /// The named ones.
    pub named: Vec<(String, Value)>,
}

impl Args {
    /// Adds a positional argument.
    #[must_use]
    pub fn and(mut self, value: impl Into<Value>) -> Self {
        self.positional.push(value.into());
        self
    }

    /// Adds a named argument.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.named.push((name.into(), value.into()));
        self
    }

    /// The positional argument at that place, the first at 0.
    pub fn get(&self, index: usize) -> Option<&Value> {
        self.positional.get(index)
    }

    /// The named argument of that name.
    pub fn get_named(&self, name: &str) -> Option<&Value> {
        self.named.iter().find(|(have, _)| have == name).map(|(_, value)| value)
    }

    /// The values alone.
    pub(crate) fn into_values(self) -> Vec<Value> {
        let mut values = self.positional.into_vec();
        values.extend(self.named.into_iter().map(|(_, value)| value));
        values
    }

    /// All values, in wire order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.positional.iter().chain(self.named.iter().map(|(_, value)| value))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.positional.iter_mut().chain(self.named.iter_mut().map(|(_, value)| value))
    }
}

impl From<()> for Args {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl<V: Into<Value>, const N: usize> From<[V; N]> for Args {
    fn from(values: [V; N]) -> Self {
        Self { positional: values.into_iter().map(Into::into).collect(), named: Vec::new() }
    }
}

impl<V: Into<Value>> From<Vec<V>> for Args {
    fn from(values: Vec<V>) -> Self {
        Self { positional: values.into_iter().map(Into::into).collect(), named: Vec::new() }
    }
}
