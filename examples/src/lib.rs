//! The programs that the README shows, and the check that it shows them as they are.

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    const README: &str = include_str!("../../README.md");

    /// Whoever changes a program copies it to the README, too.
    #[test]
    fn the_readme_shows_the_programs_as_they_are() {
        for (name, program) in
            [("server.rs", include_str!("../server.rs")), ("client.rs", include_str!("../client.rs"))]
        {
            assert!(README.contains(&format!("```rust,no_run\n{program}```\n")), "README.md shows another {name}");
            assert!(program.lines().count() < 60, "{name} is too long for a README");
        }
    }
}
