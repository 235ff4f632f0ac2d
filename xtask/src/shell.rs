//! Running other programs, with their output passed on as it comes.

use std::{
    env,
    ffi::OsString,
    io::{self, Read, Write},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

/// The cargo that runs us, started in `directory`.
pub fn cargo(directory: &Path) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(directory);
    command
}

/// Runs `command`; anything but exit code 0 is an error.
pub fn run(command: &mut Command) -> Result<(), String> {
    announce(command);
    let status = command.stdin(Stdio::null()).status();
    judge(command, status)
}

/// Like [`run`], and also shows each finished line of standard output to `on_line`.
pub fn run_reading(command: &mut Command, on_line: impl FnMut(&str)) -> Result<(), String> {
    announce(command);
    let status = (|| {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        if let Some(stdout) = child.stdout.take() {
            pass_on(stdout, io::stdout(), on_line)?;
        }
        child.wait()
    })();
    judge(command, status)
}

/// Whether `command` exits with 0. Shows nothing.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn announce(command: &Command) {
    println!("$ {}", shown(command));
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(name).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn judge(command: &Command, status: io::Result<ExitStatus>) -> Result<(), String> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{}`: {status}", shown(command))),
        Err(error) => Err(format!("`{}`: {error}", shown(command))),
    }
}

/// Copies chunks as they come, not lines, so that half a line is seen while a test still runs.
fn pass_on(mut from: impl Read, mut to: impl Write, mut on_line: impl FnMut(&str)) -> io::Result<()> {
    let mut chunk = [0; 4096];
    let mut line = Vec::new();
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&chunk[..count])?;
        to.flush()?;
        for &byte in &chunk[..count] {
            if byte == b'\n' {
                on_line(&String::from_utf8_lossy(&line));
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    if !line.is_empty() {
        on_line(&String::from_utf8_lossy(&line));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_passed_on_unchanged_and_read_by_lines() {
        let (mut copy, mut lines) = (Vec::new(), Vec::new());
        let output = b"one\n\xff two\n\nlast";
        pass_on(&output[..], &mut copy, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(copy, output);
        assert_eq!(lines, ["one", "\u{fffd} two", "", "last"]);
    }
}
