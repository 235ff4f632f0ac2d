//! That the soak does all that it says, in a few seconds of it: nothing is wrong, and the server has seen as much as the client.

use std::process::Command;

/// The number before a word.
fn number(text: &str, word: &str) -> u64 {
    let words: Vec<_> = text.split([' ', ',', ';', '\n']).filter(|word| !word.is_empty()).collect();
    let first: Vec<_> = word.split(' ').collect();
    let at = words.windows(first.len()).position(|some| some == first);
    let at = at.unwrap_or_else(|| panic!("no {word:?} in\n{text}"));
    words[at - 1].parse().unwrap_or_else(|_| panic!("no number before {word:?} in\n{text}"))
}

#[test]
fn all_kinds_of_load_leave_nothing_behind() {
    let output = Command::new(env!("CARGO_BIN_EXE_farref-soak")).args(["--minutes", "0.05", "--seed", "11"]).output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("nothing lost, nothing doubled, nothing in doubt, memory flat\n"), "{text}");
    let steps = text.lines().find_map(|line| line.strip_prefix("steps: ")).unwrap();
    let kinds = [
        "calls",
        "callbacks",
        "batches",
        "promises",
        "references",
        "kept there",
        "large",
        "on threads",
        "cancelled",
        "deadlines",
        "revoked",
        "sessions",
    ];
    for kind in kinds {
        assert!(number(steps, kind) > 0, "{kind}: {text}");
    }
    // What each step is made of adds up.
    let calls = text.lines().find_map(|line| line.strip_prefix("calls: ")).unwrap();
    let (calls, marked) = calls.split_once("; ").unwrap();
    let once = ["calls", "callbacks", "kept there", "large", "on threads", "cancelled"];
    let [once, twice, thrice] = [&once[..], &["promises", "deadlines"], &["references", "revoked"]]
        .map(|kinds| kinds.iter().map(|kind| number(steps, kind)).sum::<u64>());
    let made = once + 2 * twice + 3 * thrice + 16 * number(steps, "batches");
    // Steps that the end has cut short count as calls alone.
    assert!((made..made + 24 * 16).contains(&calls.parse().unwrap()), "{made} calls: {text}");
    assert!((0..24).contains(&(number(marked, "numbers") - number(steps, "calls") - number(steps, "callbacks"))));
    assert!(number(&text, "connections went on with a session") > 10, "{text}");
    // A line for each quiet point.
    assert_eq!(text.matches(" calls, ").count() - 1, 4, "{text}");
    assert_eq!(text.matches("no session  ").count(), 4, "{text}");
}
