//! Results as one line of JSON. `farref call --help` documents the form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value, json};

use crate::exit::{Exit, Failure};
use crate::look::{Look, Plain};
use crate::show;

/// The line to print.
pub fn text(look: &Look) -> Result<String, Failure> {
    let value = match look {
        Look::Value(value) => json(value),
        Look::Object { text, .. } => json!({ "$ref": text }),
    };
    let line = serde_json::to_string(&value).map_err(|error| Failure::new(Exit::Local, error.to_string()))?;
    Ok(line + "\n")
}

/// Values nest 16 deep at most (VAL-4).
fn json(value: &Plain) -> Value {
    match value {
        Plain::None => Value::Null,
        Plain::Bool(value) => Value::Bool(*value),
        Plain::NotImplemented => json!({ "$not_implemented": true }),
        Plain::Int(value) => {
            let digits = show::integer(value);
            match digits.parse::<Number>() {
                Ok(number) => Value::Number(number),
                Err(_) => json!({ "$int": digits }),
            }
        }
        Plain::Float(value) => match Number::from_f64(*value) {
            Some(number) => Value::Number(number),
            None => json!({ "$float": show::float(*value) }),
        },
        Plain::Str(text) => Value::String(text.clone()),
        Plain::Bytes(bytes) => json!({ "$bytes": STANDARD.encode(bytes) }),
        Plain::Tuple(items) | Plain::List(items) | Plain::Set(items) => all(items),
        Plain::Map(entries) => map(entries),
        Plain::Exception { name, args } => json!({ "$exception": name, "args": all(args) }),
        Plain::Object(text) => json!({ "$ref": text }),
    }
}

fn all(items: &[Plain]) -> Value {
    Value::Array(items.iter().map(json).collect())
}

/// An object where its keys can be an object's, and cannot be taken for one of the forms with `$`.
fn map(entries: &[(Plain, Plain)]) -> Value {
    let mut object = Map::new();
    for (key, value) in entries {
        match key {
            Plain::Str(key) if !key.starts_with('$') && !object.contains_key(key) => {
                object.insert(key.clone(), json(value));
            }
            _ => {
                let pair = |(key, value): &(Plain, Plain)| json!([json(key), json(value)]);
                return json!({ "$map": entries.iter().map(pair).collect::<Vec<_>>() });
            }
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;
    use crate::look;

    fn line(value: Plain) -> String {
        text(&Look::Value(value)).expect("it is JSON").trim_end().to_owned()
    }

    fn word(text: &str) -> Plain {
        Plain::Str(text.into())
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(line(Plain::Int(BigInt::from(-10).pow(31))), format!("-1{}", "0".repeat(31)));
        assert_eq!(line(Plain::Float(1.0)), "1.0");
        assert_eq!(line(Plain::Float(f64::INFINITY)), r#"{"$float":"inf"}"#);
        assert_eq!(line(Plain::Float(f64::NAN)), r#"{"$float":"nan"}"#);
        assert!(line(Plain::Int(BigInt::from(1) << 1_000_000)).starts_with(r#"{"$int":"0x1000"#));
    }

    #[test]
    fn maps_keep_their_keys_and_their_order() {
        let map = Plain::Map(vec![(word("b"), Plain::None), (word("a"), Plain::Bytes(vec![0, 255]))]);
        assert_eq!(line(map), r#"{"b":null,"a":{"$bytes":"AP8="}}"#);
        let map = Plain::Map(vec![(word("$ref"), Plain::Bool(true))]);
        assert_eq!(line(map), r#"{"$map":[["$ref",true]]}"#);
        let map = Plain::Map(vec![(Plain::Tuple(vec![]), word("é\n"))]);
        assert_eq!(line(map), r#"{"$map":[[[],"é\n"]]}"#);
    }

    proptest! {
        #[test]
        fn any_value_is_one_line_of_json(value in look::tests::any_plain()) {
            let line = text(&Look::Value(value)).expect("it is JSON");
            prop_assert_eq!(line.matches('\n').count(), 1);
            let parsed: Value = serde_json::from_str(&line).expect("it is JSON");
            prop_assert_eq!(parsed.to_string() + "\n", line);
        }
    }

    #[test]
    fn the_rest_has_a_form() {
        let exception = Plain::Exception { name: "KeyError".into(), args: vec![word("k")] };
        let all = vec![exception, Plain::NotImplemented, Plain::Object("<x>".into())];
        let expected = r#"[{"$exception":"KeyError","args":["k"]},{"$not_implemented":true},{"$ref":"<x>"}]"#;
        assert_eq!(line(Plain::Set(all)), expected);
    }
}
