//! What is there to be seen of a result: remote objects become their contents or their text form.

use farref_pipe::{
    Args, Connection, Error, ErrorCode, Exception, Member, Op, Pending, Promise, Reference, Remote, Value,
};
use num_bigint::{BigInt, Sign};

/// A value without references, to be printed.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are those of Value")]
pub enum Plain {
    None,
    Bool(bool),
    NotImplemented,
    Int(BigInt),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Self>),
    List(Vec<Self>),
    Set(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Exception {
        name: String,
        args: Vec<Self>,
    },
    /// A reference, by its text form.
    Object(String),
}

/// A result as far as it can be printed.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// A value, or the contents of a container.
    Value(Plain),
    /// Another object.
    Object {
        /// Its text form.
        text: String,
        /// What it can be asked for.
        members: Vec<Member>,
    },
}

/// Fetches what is needed to print a result: nothing for most values, one round trip for a reference (contents, text form
/// and members are asked for together), and one for references inside a value.
pub fn look_at(connection: &Connection, value: Value) -> Result<Look, Error> {
    let Value::Reference(reference) = value else {
        return Ok(Look::Value(plain(connection, value)?));
    };
    let object = connection.settled(reference);
    let contents = object.start_op(Op::Force, Args::default())?;
    let text = object.start_op(Op::Text, Args::default())?;
    let members = object.describe();
    match contents.wait() {
        Err(Error::Refused(ErrorCode::Unsupported, _)) => {}
        contents => return Ok(Look::Value(plain(connection, contents?)?)),
    }
    // What an object does not tell of itself is not worth an error, except that there is none to ask any more.
    let members = match members {
        Err(error) if error.ended().is_some() => return Err(error),
        members => members.unwrap_or_default(),
    };
    Ok(Look::Object { text: text_form(text)?, members })
}

/// References whose text form is asked for; more of them would only flood the screen.
const MOST_TEXTS: usize = 1000;

fn plain(connection: &Connection, value: Value) -> Result<Plain, Error> {
    let mut objects: Vec<Promise> = Vec::new();
    value.each_reference(&mut |reference: &Reference| {
        if objects.len() < MOST_TEXTS {
            objects.push(connection.settled(reference.clone()));
        }
    });
    let asked: Result<Vec<_>, _> = objects.iter().map(|object| object.start_op(Op::Text, Args::default())).collect();
    let texts: Result<Vec<_>, _> = asked?.into_iter().map(text_form).collect();
    Ok(without_references(value, &mut texts?.into_iter()))
}

/// The arguments of an exception, without asking anybody about references among them.
pub fn arguments(exception: &Exception) -> Vec<Plain> {
    let unasked = |value: &Value| {
        let mut texts = Vec::new();
        value.each_reference(&mut |reference: &Reference| texts.push(format!("{reference:?}")));
        without_references(value.clone(), &mut texts.into_iter())
    };
    exception.args.iter().map(unasked).collect()
}

fn text_form(asked: Pending) -> Result<String, Error> {
    match asked.wait() {
        Ok(Value::Str(text)) => Ok(text),
        Err(error) if error.ended().is_some() => Err(error),
        _ => Ok(NO_TEXT.into()),
    }
}

const NO_TEXT: &str = "<object>";

/// Puts the next of `texts` in the place of each reference. Values nest 16 deep at most (VAL-4).
fn without_references(value: Value, texts: &mut dyn Iterator<Item = String>) -> Plain {
    let text = |texts: &mut dyn Iterator<Item = String>| texts.next().unwrap_or_else(|| NO_TEXT.into());
    let all = |items: Vec<Value>, texts: &mut dyn Iterator<Item = String>| {
        items.into_iter().map(|item| without_references(item, texts)).collect()
    };
    match value {
        Value::None => Plain::None,
        Value::Bool(value) => Plain::Bool(value),
        Value::NotImplemented => Plain::NotImplemented,
        Value::Int(value) => Plain::Int(value.into()),
        Value::BigInt(negative, magnitude) => {
            let sign = if negative { Sign::Minus } else { Sign::Plus };
            Plain::Int(BigInt::from_bytes_le(sign, &magnitude))
        }
        Value::Float(value) => Plain::Float(value),
        Value::Str(text) => Plain::Str(text),
        Value::Bytes(bytes) => Plain::Bytes(bytes),
        Value::Tuple(items) => Plain::Tuple(all(items, texts)),
        Value::List(items) => Plain::List(all(items, texts)),
        Value::Set(items) => Plain::Set(all(items, texts)),
        Value::Map(entries) => {
            let entry = |(key, value)| {
                let key = without_references(key, texts);
                (key, without_references(value, texts))
            };
            Plain::Map(entries.into_iter().map(entry).collect())
        }
        Value::Reference(_) => Plain::Object(text(texts)),
        Value::Exception(exception) => {
            let Exception { name, args, traceback, .. } = *exception;
            let args = all(args, texts);
            if traceback.is_some() {
                text(texts);
            }
            Plain::Exception { name, args }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Any value that a peer may send.
    pub fn any_plain() -> impl Strategy<Value = Plain> {
        let leaf = prop_oneof![
            Just(Plain::None),
            any::<bool>().prop_map(Plain::Bool),
            Just(Plain::NotImplemented),
            any::<i128>().prop_map(|value| Plain::Int(BigInt::from(value).pow(3))),
            any::<f64>().prop_map(Plain::Float),
            any::<String>().prop_map(Plain::Str),
            vec(any::<u8>(), 0..100).prop_map(Plain::Bytes),
            any::<String>().prop_map(Plain::Object),
        ];
        leaf.prop_recursive(15, 100, 50, |inner| {
            let all = || vec(inner.clone(), 0..50);
            prop_oneof![
                all().prop_map(Plain::Tuple),
                all().prop_map(Plain::List),
                all().prop_map(Plain::Set),
                vec((inner.clone(), inner.clone()), 0..20).prop_map(Plain::Map),
                (any::<String>(), all()).prop_map(|(name, args)| Plain::Exception { name, args }),
            ]
        })
    }
}
