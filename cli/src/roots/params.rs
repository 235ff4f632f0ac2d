//! Positional and named arguments bound to parameters.

use farref_pipe::{Args, Error, Reference, Value};

/// The parameters of a function.
#[derive(Clone, Copy, Debug)]
pub struct Signature {
    /// As people read it.
    pub text: &'static str,
    /// The names of the parameters, in order.
    pub names: &'static [&'static str],
    /// How many of them have no default.
    pub required: usize,
}

/// Arguments, each at the place of its parameter.
#[derive(Debug)]
pub struct Bound {
    signature: Signature,
    values: Vec<Option<Value>>,
}

impl Signature {
    /// Puts each argument where it belongs.
    pub fn bind(self, args: Args) -> Result<Bound, Error> {
        if args.positional.len() > self.names.len() {
            let (given, most) = (args.positional.len(), self.names.len());
            return Err(self.fault(format_args!("{given} arguments instead of {most} at most")));
        }
        let mut values: Vec<_> = args.positional.into_iter().map(Some).collect();
        values.resize(self.names.len(), None);
        for (name, value) in args.named {
            let Some(place) = self.names.iter().position(|known| *known == name) else {
                return Err(self.fault(format_args!("there is no argument {name:?}")));
            };
            if values[place].replace(value).is_some() {
                return Err(self.fault(format_args!("{name} is given twice")));
            }
        }
        match values.iter().take(self.required).position(Option::is_none) {
            Some(missing) => Err(self.fault(format_args!("{} is missing", self.names[missing]))),
            None => Ok(Bound { signature: self, values }),
        }
    }

    /// That the arguments do not fit, and why.
    pub fn fault(self, why: impl std::fmt::Display) -> Error {
        Error::bad_arguments(format!("{} ({why})", self.text))
    }
}

impl Bound {
    /// The text at that place; nothing if it is left to the default.
    pub fn text(&mut self, place: usize) -> Result<Option<String>, Error> {
        match self.values[place].take() {
            None => Ok(None),
            Some(Value::Str(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(place, "text")),
        }
    }

    /// The text at a place that has no default.
    pub fn required_text(&mut self, place: usize) -> Result<String, Error> {
        self.text(place)?.ok_or_else(|| self.wrong(place, "text"))
    }

    /// The integer at that place; none stands for the default, too.
    pub fn integer(&mut self, place: usize) -> Result<Option<i64>, Error> {
        match self.values[place].take() {
            None | Some(Value::None) => Ok(None),
            Some(Value::Int(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong(place, "an integer within 64 bits")),
        }
    }

    /// The integer at that place that counts something.
    pub fn count(&mut self, place: usize) -> Result<Option<u64>, Error> {
        let number = self.integer(place)?;
        number.map(|number| u64::try_from(number).map_err(|_| self.wrong(place, "0 or more"))).transpose()
    }

    /// The truth value at that place; nothing if it is left to the default.
    pub fn boolean(&mut self, place: usize) -> Result<Option<bool>, Error> {
        match self.values[place].take() {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(self.wrong(place, "true or false")),
        }
    }

    /// The object at that place.
    pub fn reference(&mut self, place: usize) -> Result<Reference, Error> {
        match self.values[place].take() {
            Some(Value::Reference(reference)) => Ok(reference),
            _ => Err(self.wrong(place, "an object")),
        }
    }

    /// Whatever stands at that place.
    pub fn value(&mut self, place: usize) -> Value {
        self.values[place].take().unwrap_or(Value::None)
    }

    /// That the argument at that place is of the wrong kind.
    pub fn wrong(&self, place: usize, wanted: &str) -> Error {
        self.signature.fault(format_args!("{} has to be {wanted}", self.signature.names[place]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Signature = Signature { text: "open(path, mode=\"r\")", names: &["path", "mode"], required: 1 };

    fn fault(args: Args) -> String {
        OPEN.bind(args).expect_err("they do not fit").to_string()
    }

    #[test]
    fn arguments_bind_by_place_and_by_name() {
        for args in [Args::from(["a", "rb"]), Args::from(["a"]).named("mode", "rb"), {
            Args::default().named("mode", "rb").named("path", "a")
        }] {
            let mut bound = OPEN.bind(args).expect("they fit");
            assert_eq!(bound.required_text(0), Ok("a".into()));
            assert_eq!(bound.text(1), Ok(Some("rb".into())));
        }
        let mut bound = OPEN.bind(["a"].into()).expect("they fit");
        assert_eq!(bound.text(1), Ok(None));
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_signature() {
        let expected = "bad arguments; expected open(path, mode=\"r\") (";
        assert_eq!(fault(().into()), format!("{expected}path is missing)"));
        assert_eq!(fault(["a", "r", "x"].into()), format!("{expected}3 arguments instead of 2 at most)"));
        assert_eq!(fault(Args::from(["a"]).named("path", "b")), format!("{expected}path is given twice)"));
        assert_eq!(fault(Args::from(["a"]).named("mod", "b")), format!("{expected}there is no argument \"mod\")"));
        let mut bound = OPEN.bind([1].into()).expect("they fit");
        let error = bound.required_text(0).expect_err("it is a number");
        assert_eq!(error.to_string(), format!("{expected}path has to be text)"));
    }
}
