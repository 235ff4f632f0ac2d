//! Any body: taken apart or refused, and what is accepted has one encoding (MSG-1, VAL-1).

#![no_main]

use farref_core::codec::Writer;
use farref_core::frame::{PreambleScanner, Split, split};
use farref_core::message::Message;
use farref_core::value::{Top, ValueWriter, Values};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = PreambleScanner::default().scan(body);
    let mut rest = body;
    while let Split::Record { body, rest: more } = split(rest, 64) {
        assert!(!body.is_empty() && body.len() <= 64);
        rest = more;
    }
    match Message::read(body) {
        Ok(Message::Call(call)) => {
            assert_eq!(call.handles.count(), call.handles.len() as usize);
            check(call.values, Top::Arguments, call.handles.len());
        }
        Ok(Message::Return(back)) => {
            assert_eq!(back.handles.count(), back.handles.len() as usize);
            check(back.values, if back.error.is_some() { Top::Error } else { Top::Result }, back.handles.len());
        }
        Ok(Message::Finish(entries)) => assert!(entries.count() > 0),
        Ok(Message::Release(entries)) => assert!(entries.count() > 0),
        _ => {}
    }
    check(body, Top::Arguments, 2);
});

fn check(bytes: &[u8], top: Top, handles: u32) {
    let Ok(values) = Values::check(bytes, top, handles) else { return };
    assert_eq!({ values }.count(), values.len());
    let mut again = vec![0; bytes.len()];
    let mut writer = ValueWriter::new(Writer::new(&mut again), top, handles);
    { values }.try_for_each(|value| writer.copy(value)).expect("accepted, so writable");
    assert_eq!(writer.finish().expect("complete").written(), Some(bytes));
    let _ = format!("{values:?} {:?}", values.first().map(|value| value.to_string()));
}
