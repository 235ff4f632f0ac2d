//! Reading: characters, lines, limits.

use super::super::ahead::BLOCK;
use super::*;
use proptest::prelude::*;

#[test]
fn reads_characters_or_bytes() {
    let contents = "aé€😀b\r\nc";
    let fixture = Fixture::with(&[("f", contents.as_bytes())]);
    let tree = fixture.reader();
    let file = tree.open("f", "r").unwrap();
    assert_eq!(file.read(Some(0), LIMIT), Ok(text("")));
    assert_eq!(file.read(Some(2), LIMIT), Ok(text("aé")));
    assert_eq!(file.tell(), Ok(3));
    assert_eq!(file.read(Some(2), LIMIT), Ok(text("€😀")));
    assert_eq!(file.read(Some(99), LIMIT), Ok(text("b\r\nc")));
    assert_eq!(file.read(Some(1), LIMIT), Ok(text("")));
    assert_eq!(file.read(None, LIMIT), Ok(text("")));
    file.seek(0, 0).unwrap();
    assert_eq!(file.read(None, LIMIT), Ok(text(contents)));
    file.seek(0, 0).unwrap();
    assert_eq!(file.read(Some(u64::MAX), LIMIT), Ok(text(contents)));

    let file = tree.open("f", "rb").unwrap();
    assert_eq!(file.read(Some(2), LIMIT), Ok(bytes(b"a\xc3")));
    assert_eq!(file.read(Some(u64::MAX), LIMIT), Ok(bytes(&contents.as_bytes()[2..])));
    assert_eq!(file.read(None, LIMIT), Ok(bytes(b"")));
}

#[test]
fn a_character_is_never_split() {
    for character in ["é", "€", "😀"] {
        for before in BLOCK - 5..BLOCK + 2 {
            let contents = format!("{}{character}b", "a".repeat(before));
            let fixture = Fixture::with(&[("f", contents.as_bytes())]);
            let file = fixture.reader().open("f", "r").unwrap();
            let at = before as u64;
            assert_eq!(file.read(Some(at), LIMIT), Ok(text(&contents[..before])));
            assert_eq!(file.read(Some(1), LIMIT), Ok(text(character)));
            assert_eq!(file.read(None, LIMIT), Ok(text("b")));
            file.seek(0, 0).unwrap();
            assert_eq!(file.read(Some(at + 1), LIMIT), Ok(text(&contents[..contents.len() - 1])));
            file.seek(0, 0).unwrap();
            assert_eq!(file.next_line(LIMIT), Ok(Some(text(&contents))));
        }
    }
}

#[test]
fn a_cut_sequence_is_an_error_at_each_offset() {
    let whole = "😀".as_bytes();
    for end in 1..whole.len() {
        let fixture = Fixture::with(&[("f", &[b"ok", &whole[..end]].concat())]);
        let file = fixture.reader().open("f", "r").unwrap();
        for _ in 0..2 {
            // What comes before the fault can be read; the fault moves nothing.
            file.seek(0, 0).unwrap();
            assert_eq!(file.read(Some(2), LIMIT), Ok(text("ok")));
            for result in [file.read(Some(1), LIMIT), file.read(None, LIMIT), file.next_line(LIMIT).map(Option::unwrap)]
            {
                let error = fault(result);
                assert_eq!(error.exception(), "UnicodeDecodeError");
                assert_eq!(
                    error.args(),
                    [
                        ErrorArg::Str("utf-8".into()),
                        ErrorArg::Bytes(whole[..end].into()),
                        ErrorArg::Int(0),
                        ErrorArg::Int(end as i64),
                        ErrorArg::Str("unexpected end of data (at byte 2 of 'f')".into()),
                    ]
                );
                assert_eq!(file.tell(), Ok(2));
            }
        }
        // In the midst of a character.
        let fixture = Fixture::with(&[("f", whole)]);
        let file = fixture.reader().open("f", "r").unwrap();
        file.seek(end as i64, 0).unwrap();
        let error = fault(file.read(Some(1), LIMIT));
        let message = format!(
            "UnicodeDecodeError: 'utf-8' codec can't decode byte {:#x} in position 0: \
             invalid start byte (at byte {end} of 'f')",
            whole[end]
        );
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn what_is_not_utf8_is_refused_in_text_mode_only() {
    for (contents, len, reason) in [
        (&b"a\xff"[..], 1, "invalid start byte"),
        (b"a\xe2(\xa1", 1, "invalid continuation byte"),
        (b"a\xc0\x80", 1, "invalid start byte"),
        (b"a\xed\xa0\x80", 1, "invalid continuation byte"),
        (b"a\xe2\x82(", 2, "invalid continuation byte"),
        (b"a\xf0\x9f\x98z", 3, "invalid continuation byte"),
    ] {
        let fixture = Fixture::with(&[("f", contents)]);
        let tree = fixture.reader();
        let error = fault(tree.open("f", "r").unwrap().read(None, LIMIT));
        let expected =
            FileError::Decode { object: contents[1..1 + len].into(), reason: format!("{reason} (at byte 1 of 'f')") };
        assert_eq!(error, expected);
        let read = tree.open("f", "rb").unwrap().read(None, LIMIT);
        assert_eq!(read, Ok(bytes(contents)));
    }
    let fixture = Fixture::with(&[("f", b"\xe2\x82")]);
    let error = fault(fixture.reader().open("f", "r").unwrap().read(None, LIMIT));
    assert_eq!(
        error.to_string(),
        "UnicodeDecodeError: 'utf-8' codec can't decode bytes in position 0-1: \
         unexpected end of data (at byte 0 of 'f')"
    );
}

#[test]
fn lines_keep_their_ends_and_come_in_batches() {
    let fixture = Fixture::with(&[("f", "one\n\ntwo\r\nthrée".as_bytes())]);
    let tree = fixture.reader();
    let all = ["one\n", "\n", "two\r\n", "thrée"].map(text);
    let file = tree.open("f", "r").unwrap();
    for line in &all {
        assert_eq!(file.next_line(LIMIT), Ok(Some(line.clone())));
    }
    assert_eq!(file.next_line(LIMIT), Ok(None));
    assert_eq!(file.lines(9, LIMIT), Ok(vec![]));

    file.seek(0, 0).unwrap();
    assert_eq!(file.lines(2, LIMIT).unwrap(), all[..2]);
    assert_eq!(file.tell(), Ok(5));
    assert_eq!(file.lines(9, LIMIT).unwrap(), all[2..]);

    // By bytes: 4 + 1 fit in 9, with the third line it would be 10.
    file.seek(0, 0).unwrap();
    assert_eq!(file.lines(9, 9).unwrap(), all[..2]);
    assert_eq!(file.lines(9, 11).unwrap(), all[2..]);
    file.seek(0, 0).unwrap();
    assert_eq!(file.lines(9, 10).unwrap(), all[..3]);

    let file = tree.open("f", "rb").unwrap();
    assert_eq!(file.lines(1, LIMIT), Ok(vec![bytes(b"one\n")]));
}

#[test]
fn a_bad_line_ends_the_batch_before_it() {
    let fixture = Fixture::with(&[("f", b"good\nb\xffd\nlonger line\n")]);
    let tree = fixture.reader();
    let file = tree.open("f", "r").unwrap();
    assert_eq!(file.lines(9, LIMIT), Ok(vec![text("good\n")]));
    for _ in 0..2 {
        assert_eq!(kind(file.lines(9, LIMIT)), ("UnicodeDecodeError", None));
        assert_eq!(file.tell(), Ok(5));
    }
    let file = tree.open("f", "rb").unwrap();
    assert_eq!(file.lines(9, 10).unwrap().len(), 2);
    let error = fault(file.lines(9, 10));
    assert_eq!(
        error.to_string(),
        "OSError: [Errno 27] a line of more than 10 bytes cannot be read at once, the limit is 10; \
         read in parts, as with read(10): 'f'"
    );
    assert_eq!(file.read(Some(6), 10), Ok(bytes(b"longer")));
}

#[test]
fn what_is_too_large_is_refused_before_anything_changed() {
    let contents = "é".repeat(50_000);
    let fixture = Fixture::with(&[("f", contents.as_bytes())]);
    let tree = fixture.reader();
    let file = tree.open("f", "rb").unwrap();
    let error = fault(file.read(None, 1000));
    assert_eq!(
        error.to_string(),
        "OSError: [Errno 27] 100000 bytes cannot be read at once, the limit is 1000; \
         read in parts, as with read(1000): 'f'"
    );
    assert_eq!(error.errno(), Some(27));
    assert_eq!(kind(file.read(Some(1001), 1000)), ("OSError", Some(27)));
    assert_eq!(kind(file.read(None, 99_999)), ("OSError", Some(27)));
    assert_eq!(file.tell(), Ok(0));
    assert_eq!(file.read(Some(1000), 1000), Ok(bytes(&contents.as_bytes()[..1000])));
    file.seek(-10, 2).unwrap();
    assert_eq!(file.read(None, 10), Ok(bytes(&contents.as_bytes()[..10])));
    file.seek(0, 0).unwrap();
    assert_eq!(file.read(None, 100_000), Ok(bytes(contents.as_bytes())));

    let file = tree.open("f", "r").unwrap();
    let error = fault(file.read(None, 1000));
    assert!(error.to_string().contains("100000 bytes"), "{error}");
    assert!(error.to_string().contains("as with read(250)"), "{error}");
    assert_eq!(kind(file.read(Some(501), 1000)), ("OSError", Some(27)));
    assert_eq!(kind(file.next_line(1000)), ("OSError", Some(27)));
    assert_eq!(file.tell(), Ok(0));
    assert_eq!(file.read(Some(500), 1000), Ok(text(&contents[..1000])));
    assert_eq!(file.tell(), Ok(1000));
    // An odd limit lies in the midst of a character.
    assert_eq!(file.read(Some(250), 501), Ok(text(&contents[..500])));
    assert_eq!(kind(file.read(Some(251), 501)), ("OSError", Some(27)));
    assert_eq!(file.read(Some(0), 0), Ok(text("")));
}

#[cfg(target_os = "linux")]
#[test]
fn files_without_a_stated_size_are_read_to_the_end() {
    let tree = Tree::rooted_at(Path::new("/proc/sys/kernel"), false).unwrap();
    let stat = tree.stat("ostype").unwrap();
    assert_eq!((stat.kind, stat.size), (Kind::File, 0));
    let file = tree.open("ostype", "r").unwrap();
    let error = fault(file.read(None, 3));
    assert!(error.to_string().contains("more than 3 bytes"), "{error}");
    assert_eq!(file.read(None, LIMIT), Ok(text("Linux\n")));
}

#[test]
fn what_is_appended_meanwhile_is_seen() {
    let fixture = Fixture::with(&[("f", b"one\n")]);
    let tree = fixture.writer();
    let reader = tree.open("f", "r").unwrap();
    let writer = tree.open("f", "a").unwrap();
    assert_eq!(reader.lines(9, LIMIT), Ok(vec![text("one\n")]));
    assert_eq!(reader.lines(9, LIMIT), Ok(vec![]));
    writer.write(DataRef::Text("two\n")).unwrap();
    assert_eq!(reader.read(Some(2), LIMIT), Ok(text("tw")));
    assert_eq!(reader.lines(9, LIMIT), Ok(vec![text("o\n")]));
}

proptest! {
    /// However a text is cut into reads, they add up to it.
    #[test]
    fn parts_add_up(
        contents in "[a-c\né€😀]{0,300}",
        shift in 0..8_usize,
        counts in prop::collection::vec(1..20_u64, 1..8),
    ) {
        // Across the end of a block, too.
        let padding = "x".repeat(BLOCK - shift * 20);
        let contents = format!("{padding}\n{contents}");
        let fixture = Fixture::with(&[("f", contents.as_bytes())]);
        let file = fixture.reader().open("f", "r").unwrap();
        let mut seen = String::new();
        for count in counts.iter().cycle() {
            let part = match file.read(Some(*count), 80).unwrap() {
                Data::Text(part) => part,
                Data::Bytes(_) => unreachable!(),
            };
            let rest = contents[seen.len()..].chars().count() as u64;
            prop_assert_eq!(part.chars().count() as u64, rest.min(*count));
            if part.is_empty() {
                break;
            }
            seen.push_str(&part);
            prop_assert_eq!(file.tell().unwrap(), seen.len() as u64);
        }
        prop_assert_eq!(&seen, &contents);

        file.seek(0, 0).unwrap();
        let mut lines = Vec::new();
        while let Some(Data::Text(line)) = file.next_line(LIMIT).unwrap() {
            lines.push(line);
        }
        let expected: Vec<_> = contents.split_inclusive('\n').collect();
        prop_assert_eq!(lines, expected);
    }
}
