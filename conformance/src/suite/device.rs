//! Which cases make sense on a device, which has no heap and small tables.

/// Whether a case is run against a device's fixtures.
pub fn is_for_devices(id: &str) -> bool {
    NOT_FOR_DEVICES.iter().all(|(_, cases)| !cases.contains(&id))
}

/// The others, and why.
pub const NOT_FOR_DEVICES: &[(&str, &[&str])] = &[
    (
        "a device makes no pipelined calls",
        &[
            "ANS-2/subject-builds-on-its-promise",
            "ANS-5/finish-follows-the-return",
            "FIN-1/subject-finishes-its-promise",
        ],
    ),
    (
        "a call for an object that came home is not passed on: that needs memory for its arguments",
        &["ANS-6/answer-that-came-home-is-forwarded"],
    ),
    (
        "the fixtures of a device answer at once, or let calls on one object overlap",
        &[
            "ORD-2/nested-call-passes-those-without-a-parent",
            "ORD-2/nested-calls-overlap-on-no-object",
            "ORD-2/next-call-waits-for-the-return",
        ],
    ),
    ("a hundred references are more than a device holds", &["REL-1/many-dropped-at-once"]),
];
