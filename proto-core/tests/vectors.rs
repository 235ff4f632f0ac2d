//! The vectors of `conformance/vectors/`: bytes that every implementation reads alike.

use std::fs;
use std::path::Path;

use farref_core::codec::{Malformed, Writer};
use farref_core::frame::{BANNER_LIMIT, PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::{Descriptor, FinishMode, Hello, Limits, Message, Target};
use farref_core::session::{Config, Host, LinkMode, Session};
use farref_core::value::{BigInt, Top, Value, ValueError, ValueWriter, Values};
use serde_json::{Value as Json, json};

/// VAL-1 to VAL-9, CAL-5, ERR-2: values are read as the vector says, and written as the same bytes.
#[test]
fn values() {
    for entry in load("values.json") {
        let name = &entry["name"];
        let bytes = hex(&entry["hex"]);
        let top = match entry["top"].as_str() {
            None | Some("arguments") => Top::Arguments,
            Some("result") => Top::Result,
            Some("error") => Top::Error,
            other => panic!("{name}: top {other:?}"),
        };
        let handles = entry["handles"].as_u64().map_or(0, |count| count as u32);
        let checked = Values::check(&bytes, top, handles);
        if entry["refuse"] == true {
            assert_eq!(checked.err(), Some(Malformed), "{name}");
            continue;
        }
        let values = checked.unwrap_or_else(|_| panic!("{name}: refused"));
        let wanted = list(&entry["values"]);
        assert_eq!(values.len(), wanted.len(), "{name}");
        for (value, wanted) in values.zip(wanted) {
            assert!(is(value, wanted), "{name}: {value:?} is not {wanted}");
        }
        let rewrite = |write: &mut dyn FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>| {
            let mut buffer = vec![0; bytes.len()];
            let mut writer = ValueWriter::new(Writer::new(&mut buffer), top, handles);
            write(&mut writer).unwrap();
            writer.finish().unwrap().written().map(<[u8]>::to_vec)
        };
        let copied = rewrite(&mut |writer| { values }.try_for_each(|value| writer.copy(value)));
        assert_eq!(copied.as_deref(), Some(&bytes[..]), "{name}, copied");
        let written = rewrite(&mut |writer| wanted.iter().try_for_each(|value| put(writer, value)));
        assert_eq!(written.as_deref(), Some(&bytes[..]), "{name}, written");
        for cut in 0..bytes.len() {
            // The whole is one value: none of its beginnings can be.
            if let Ok(values) = Values::check(&bytes[..cut], top, handles) {
                assert!(values.len() < wanted.len(), "{name}, cut at {cut}");
            }
        }
    }
}

/// MSG-1 and what it stands for: envelopes are read as the vector says. Refused ones end a session.
#[test]
fn messages() {
    for entry in load("messages.json") {
        let name = &entry["name"];
        let bytes = hex(&entry["hex"]);
        let read = Message::read(&bytes);
        let hello = bytes.first().is_some_and(|head| head & 0x1F == 0x10);
        // What the ranges and the length of a Hello may be is the session's to say (HEL-2, HEL-3).
        if hello || read.is_err() {
            let mut session = session();
            assert_eq!(session.handle(&bytes).is_err(), entry["refuse"] == true, "{name}");
        }
        if entry["refuse"] == true {
            assert!(hello || read.is_err(), "{name}: accepted");
            continue;
        }
        assert_eq!(message_json(&read.unwrap_or_else(|_| panic!("{name}: refused"))), entry["message"], "{name}");
        for cut in 0..bytes.len() {
            match Message::read(&bytes[..cut]) {
                // These two may have more behind them than is looked at (HEL-2, MSG-3).
                Ok(Message::Hello(_) | Message::Unknown(_)) | Err(_) => {}
                Ok(message) => assert_ne!(message_json(&message), entry["message"], "{name}, cut at {cut}"),
            }
        }
    }
}

/// FRM-1, FRM-2: the same in pieces of any size.
#[test]
fn streams() {
    for entry in load("streams.json") {
        let name = &entry["name"];
        let bytes = match &entry["hex"] {
            Json::Object(parts) => {
                let times = parts["repeat"][1].as_u64().unwrap() as usize;
                [hex(&parts["repeat"][0]).repeat(times), hex(&parts["then"])].concat()
            }
            whole => hex(whole),
        };
        let max_message = entry["max_message"].as_u64().unwrap_or(64) as u32;
        let wanted: Vec<_> = list(&entry["records"]).iter().map(hex).collect();
        let sizes =
            if bytes.len() > BANNER_LIMIT { vec![1, 4096, bytes.len()] } else { (1..=bytes.len() + 1).collect() };
        for size in sizes {
            let (skipped, records, end) = receive(&bytes, size, max_message);
            assert_eq!((&records, end), (&wanted, entry["end"].as_str().unwrap()), "{name}, pieces of {size}");
            if let Some(wanted) = entry["skipped"].as_u64() {
                assert_eq!(skipped, Some(wanted as usize), "{name}, pieces of {size}");
            }
        }
    }
}

/// FRM-3: what is found does not depend on the pieces in which it comes.
#[cfg(feature = "serial")]
#[test]
fn serial() {
    use farref_core::frame::serial::{CHECK, Decoder, encode, encoded_len};
    for entry in load("serial.json") {
        let (name, line) = (&entry["name"], hex(&entry["hex"]));
        let longest = entry["longest"].as_u64().unwrap_or(64) as usize;
        let wanted: Vec<_> = list(&entry["payloads"]).iter().map(hex).collect();
        for size in 1..=line.len() {
            let mut decoder = Decoder::new(vec![0; longest + CHECK]);
            let mut payloads = Vec::new();
            for mut run in line.chunks(size) {
                while let Some(payload) = decoder.next(&mut run) {
                    payloads.push(payload.to_vec());
                }
            }
            assert_eq!(payloads, wanted, "{name}, pieces of {size}");
            assert_eq!(decoder.dropped(), entry["dropped"].as_u64().unwrap(), "{name}, pieces of {size}");
        }
        // What is found is also written like that, where no other form is shown.
        if !entry["other_form"].as_bool().unwrap_or_default() {
            for payload in &wanted {
                let mut frame = vec![0; encoded_len(payload.len())];
                let length = encode(&[payload], &mut frame).unwrap();
                let shown = line.split_inclusive(|&byte| byte == 0).any(|found| found == &frame[..length]);
                assert!(shown, "{name}: {payload:02x?} is written as {:02x?}", &frame[..length]);
            }
        }
    }
}

/// FRM-4: the payloads of a lossy line, read and written.
#[cfg(feature = "serial")]
#[test]
fn line() {
    use farref_core::link::serial::{Header, Kind};
    for entry in load("line.json") {
        let (name, payload) = (&entry["name"], hex(&entry["hex"]));
        if entry["refuse"].as_bool().unwrap_or_default() {
            assert!(Header::read(&payload).is_err(), "{name}");
            continue;
        }
        let number = |field: &str| entry[field].as_u64().unwrap();
        let kind = match entry["kind"].as_str().unwrap() {
            "ack" => Kind::Ack,
            "record" => Kind::Record { number: number("number") as u16 },
            "hello" => Kind::Hello { from: number("from") as u32 },
            other => panic!("{name}: {other}"),
        };
        let missing = entry["missing"].as_bool().unwrap_or_default();
        let header = Header { kind, missing, to: number("to") as u32, ack: number("ack") as u16 };
        let body = if entry["body"].is_null() { Vec::new() } else { hex(&entry["body"]) };
        assert_eq!(Header::read(&payload), Ok((header, body.as_slice())), "{name}");
        let mut again = vec![0; payload.len()];
        let mut writer = Writer::new(&mut again);
        header.write(&mut writer);
        writer.put(&body);
        assert_eq!(writer.written(), Some(payload.as_slice()), "{name}");
    }
}

/// What a receiver of `bytes` in pieces finds: bytes of banner, bodies, and where it then is.
fn receive(bytes: &[u8], size: usize, max_message: u32) -> (Option<usize>, Vec<Vec<u8>>, &'static str) {
    let (mut scanner, mut skipped, mut seen) = (PreambleScanner::default(), None, 0);
    let (mut records, mut buffer) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        let mut piece = piece;
        if skipped.is_none() {
            match scanner.scan(piece) {
                Scan::Found(at) => skipped = Some(seen + at - PREAMBLE.len()),
                Scan::Searching => {}
                Scan::NoPeer => return (None, records, "no peer"),
            }
            let Some(skipped) = skipped else {
                seen += piece.len();
                continue;
            };
            piece = &piece[skipped + PREAMBLE.len() - seen..];
        }
        buffer.extend_from_slice(piece);
        loop {
            let rest = match split(&buffer, max_message) {
                Split::Record { body, rest } => {
                    records.push(body.to_vec());
                    rest.to_vec()
                }
                Split::Incomplete => break,
                Split::Bad => return (skipped, records, "bad"),
            };
            buffer = rest;
        }
    }
    let end = match skipped {
        None => "searching",
        Some(_) if buffer.is_empty() => "complete",
        Some(_) => "incomplete",
    };
    (skipped, records, end)
}

fn session() -> Session<Host> {
    let limits = Limits { max_message: 4096, imports: 16, answers: 4, call_bytes: 4096, handles: 4, levels: 4 };
    Session::new(Config {
        limits,
        exports: 16,
        calls: 4,
        out_bytes: 8192,
        store_bytes: 8192,
        peer: farref_core::Uuid::nil(),
        incarnation: 0,
        link: LinkMode::Off,
        patience: None,
    })
}

/// Whether a value is what the JSON notation says.
fn is(value: Value<'_>, wanted: &Json) -> bool {
    let all = |mut values: Values<'_>, wanted: &Json| {
        let wanted = list(wanted);
        values.len() == wanted.len() && wanted.iter().all(|wanted| values.next().is_some_and(|value| is(value, wanted)))
    };
    match (value, wanted) {
        (Value::None, Json::Null) => return true,
        (Value::Bool(value), Json::Bool(wanted)) => return value == *wanted,
        (Value::Str(value), Json::String(wanted)) => return value == wanted,
        _ => {}
    }
    let Some((kind, wanted)) = tagged(wanted) else { return false };
    match (value, kind) {
        (Value::NotImplemented, "special") => true,
        (Value::Int(value), "int") => value.to_string() == wanted.as_str().unwrap(),
        (Value::BigInt(value), "int") => (value.negative, value.magnitude.to_vec()) == big(wanted.as_str().unwrap()),
        (Value::Float(value), "float") => {
            let wanted: f64 = wanted.as_str().unwrap().parse().unwrap();
            value.is_nan() && wanted.is_nan() || value.to_bits() == wanted.to_bits()
        }
        (Value::Bytes(value), "bytes") => value == hex(wanted),
        (Value::Tuple(items), "tuple") | (Value::List(items), "list") | (Value::Set(items), "set") => {
            all(items, wanted)
        }
        (Value::Map(items), "map") => all(items, &list(wanted).iter().flat_map(list).cloned().collect()),
        (Value::Reference(index), "reference") => *wanted == json!(index),
        (Value::Exception(exception), "exception") => {
            wanted["name"] == exception.name()
                && all(exception.args(), &wanted["args"])
                && wanted["text"] == json!(exception.text())
                && wanted["traceback"] == json!(exception.traceback())
        }
        (Value::Named(named), "named") => wanted[0] == named.name() && is(named.value(), &wanted[1]),
        _ => false,
    }
}

/// Writes what the JSON notation says.
fn put(writer: &mut ValueWriter<'_>, value: &Json) -> Result<(), ValueError> {
    let (kind, value) = match value {
        Json::Null => return writer.none(),
        Json::Bool(value) => return writer.bool(*value),
        Json::String(value) => return writer.str(value),
        value => tagged(value).unwrap(),
    };
    match kind {
        "special" => writer.not_implemented(),
        "int" => match value.as_str().unwrap().parse() {
            Ok(value) => writer.int(value),
            Err(_) => {
                let (negative, magnitude) = big(value.as_str().unwrap());
                writer.big_int(BigInt { negative, magnitude: &magnitude })
            }
        },
        "float" => writer.float(value.as_str().unwrap().parse().unwrap()),
        "bytes" => writer.bytes(&hex(value)),
        "reference" => writer.reference(value.as_u64().unwrap() as usize),
        "exception" => {
            let args = list(&value["args"]);
            writer.exception_head(value["name"].as_str().unwrap(), args.len())?;
            args.iter().try_for_each(|value| put(writer, value))?;
            writer.exception_tail(value["text"].as_str(), value["traceback"].as_u64().map(|index| index as usize))
        }
        "named" => {
            writer.named(value[0].as_str().unwrap())?;
            put(writer, &value[1])
        }
        "map" => {
            writer.map(list(value).len())?;
            list(value).iter().flat_map(list).try_for_each(|value| put(writer, value))
        }
        _ => {
            match kind {
                "tuple" => writer.tuple(list(value).len())?,
                "list" => writer.list(list(value).len())?,
                "set" => writer.set(list(value).len())?,
                _ => panic!("no kind of value: {kind}"),
            }
            list(value).iter().try_for_each(|value| put(writer, value))
        }
    }
}

/// A message in the JSON notation.
fn message_json(message: &Message<'_>) -> Json {
    let handles = |handles: farref_core::message::Handles<'_>| -> Vec<_> {
        handles
            .map(|handle| match handle {
                Descriptor::Sender { slot, generation } => json!({"sender": [slot, generation]}),
                Descriptor::Receiver { slot, generation } => json!({"receiver": [slot, generation]}),
                Descriptor::Answer(id) => json!({"answer": id}),
                Descriptor::Borrowed { slot, generation } => json!({"borrowed": [slot, generation]}),
                Descriptor::Weak { slot, generation } => json!({"weak": [slot, generation]}),
            })
            .collect()
    };
    match *message {
        Message::Call(call) => optional(
            json!({
            "kind": "call", "id": call.id, "pipelined": call.pipelined,
            "target": match call.target {
                Target::Export { slot, generation } => json!({"export": [slot, generation]}),
                Target::Answer(id) => json!({"answer": id}),
            },
            "op": call.op.number(), "handles": handles(call.handles), "parent": call.parent,
            "values": to_hex(call.values),
            }),
            [("deadline", call.deadline.map(|deadline| json!([deadline.remaining, deadline.consequence as u8])))],
        ),
        Message::Return(back) => json!({
            "kind": "return", "id": back.id, "error": back.error.map(|code| code.number()),
            "handles": handles(back.handles), "values": to_hex(back.values),
        }),
        Message::Finish(entries) => json!({
            "kind": "finish",
            "entries": entries.map(|(id, mode)| json!([id, match mode {
                FinishMode::Done => "done",
                FinishMode::Abandon => "abandon",
                FinishMode::Interrupt => "interrupt",
            }])).collect::<Vec<_>>(),
        }),
        Message::Release(entries) => json!({
            "kind": "release", "upto": entries.upto, "entries": entries.map(|entry| json!(entry)).collect::<Vec<_>>(),
        }),
        Message::Down(entries) => json!({
            "kind": "down",
            "entries": entries.map(|(slot, generation, reason)| json!([slot, generation, reason.number()])).collect::<Vec<_>>(),
        }),
        Message::Unimplemented(kinds) => json!({"kind": "unimplemented", "kinds": kinds}),
        Message::Hello(Hello { version_min, version_max, features, limits, peer, incarnation, link, patience }) => {
            optional(
                json!({
                "kind": "hello", "version_min": version_min, "version_max": version_max, "features": features,
                "max_message": limits.max_message, "imports": limits.imports, "answers": limits.answers,
                "call_bytes": limits.call_bytes, "handles": limits.handles, "levels": limits.levels,
                "peer": to_hex(peer.as_bytes()), "incarnation": incarnation,
                }),
                [
                    (
                        "link",
                        link.map(
                            |link| json!({"token": to_hex(&link.token), "replay": link.replay, "park": link.park}),
                        ),
                    ),
                    ("patience", (features & 2 != 0).then(|| json!(patience))),
                ],
            )
        }
        Message::Close(close) => {
            json!({"kind": "close", "code": close.code.number(), "rule": close.rule, "text": close.text})
        }
        Message::Ack(got) => json!({"kind": "ack", "got": got}),
        Message::Ping => json!({"kind": "ping"}),
        Message::Resume(resume) => json!({
            "kind": "resume", "token": to_hex(&resume.token), "attempt": resume.attempt, "got": resume.got,
        }),
        Message::ResumeOk { token, got } => json!({"kind": "resume ok", "token": to_hex(&token), "got": got}),
        Message::SessionGone { incarnation, got } => {
            json!({"kind": "session gone", "incarnation": incarnation, "got": got})
        }
        Message::Goodbye(received) => json!({"kind": "goodbye", "received": received}),
        Message::Unknown(number) => json!({"kind": "unknown", "number": number}),
    }
}

/// With fields that not every message of its kind has.
fn optional<const N: usize>(mut message: Json, fields: [(&str, Option<Json>); N]) -> Json {
    for (name, field) in fields {
        if let Some(field) = field {
            message[name] = field;
        }
    }
    message
}

fn load(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/vectors").join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn list(json: &Json) -> &Vec<Json> {
    json.as_array().unwrap()
}

fn tagged(json: &Json) -> Option<(&str, &Json)> {
    json.as_object()?.iter().next().map(|(kind, value)| (kind.as_str(), value))
}

fn hex(json: &Json) -> Vec<u8> {
    let digits: String = json.as_str().unwrap().split_whitespace().collect();
    digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sign and magnitude of a decimal number, the least significant byte first.
fn big(decimal: &str) -> (bool, Vec<u8>) {
    let (negative, digits) = decimal.strip_prefix('-').map_or((false, decimal), |digits| (true, digits));
    let mut magnitude: Vec<u8> = Vec::new();
    for digit in digits.bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in &mut magnitude {
            carry += u32::from(*byte) * 10;
            *byte = carry as u8;
            carry >>= 8;
        }
        if carry > 0 {
            magnitude.push(carry as u8);
        }
    }
    (negative, magnitude)
}
