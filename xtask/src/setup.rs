//! Installing what the checks need. Each thing is tried first, so a complete machine needs no
//! network.

use std::{path::Path, process::Command};

use crate::{shell, tree};

/// The chips that the core must link for.
pub const TARGETS: [&str; 3] = ["thumbv6m-none-eabi", "thumbv7em-none-eabihf", "riscv32i-unknown-none-elf"];

/// Where an sshd is, which is on nobody's path.
const SSHD: [&str; 4] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"];

/// Installs everything that is missing, and says all that could not be installed.
pub fn run(root: &Path) -> Result<(), String> {
    let mut steps = vec![toolchain(root)];
    for (component, subcommand) in [("clippy", "clippy"), ("rustfmt", "fmt")] {
        steps.push(ensure_component(root, component, subcommand));
    }
    steps.extend(TARGETS.map(|target| ensure_target(root, target)));
    steps.push(ensure_python());
    steps.push(ensure_ssh());

    let failures: Vec<String> = steps.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() {
        println!("nothing is missing");
        Ok(())
    } else {
        Err(failures.join("\n"))
    }
}

/// Adds the standard library of `target` to the toolchain in use.
pub fn ensure_target(root: &Path, target: &str) -> Result<(), String> {
    // Asked of rustc, not of rustup, so that a distribution's own packages count too.
    let library = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(root)
        .output()
        .map_err(|error| format!("`rustc`: {error}"))?;
    let library = String::from_utf8_lossy(&library.stdout);
    if !library.trim().is_empty() && Path::new(library.trim()).is_dir() {
        return Ok(());
    }
    rustup(root, &["target", "add", target])
}

/// Installs a nightly toolchain and cargo-fuzz. `test` needs neither.
pub fn ensure_fuzzing(root: &Path) -> Result<(), String> {
    if !shell::succeeds(nightly_cargo(root).arg("--version")) {
        rustup(root, &["toolchain", "install", "nightly", "--profile", "minimal"])?;
    }
    if shell::succeeds(nightly_cargo(root).args(["fuzz", "--version"])) {
        return Ok(());
    }
    shell::run(shell::cargo(root).args(["install", "--locked", "cargo-fuzz"]))
}

/// The cargo of the nightly toolchain, whichever runs us.
pub fn nightly_cargo(root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(root);
    command
}

/// What this machine is to rustc.
pub fn host_triple(root: &Path) -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").current_dir(root).output();
    let output = output.map_err(|error| format!("`rustc`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let triple = said.lines().find_map(|line| line.strip_prefix("host: "));
    triple.map(str::to_owned).ok_or("`rustc -vV` names no host".into())
}

fn toolchain(root: &Path) -> Result<(), String> {
    if shell::succeeds(Command::new("rustc").arg("--version").current_dir(root)) {
        return Ok(());
    }
    let text = tree::read(root, "rust-toolchain.toml")?;
    let channel = channel(&text).ok_or("rust-toolchain.toml names no channel")?;
    rustup(root, &["toolchain", "install", channel])
}

fn channel(toolchain_file: &str) -> Option<&str> {
    let line = toolchain_file.lines().find(|line| line.trim_start().starts_with("channel"))?;
    line.split('"').nth(1)
}

fn ensure_component(root: &Path, component: &str, subcommand: &str) -> Result<(), String> {
    if shell::succeeds(shell::cargo(root).args([subcommand, "--version"])) {
        return Ok(());
    }
    rustup(root, &["component", "add", component])
}

fn rustup(root: &Path, arguments: &[&str]) -> Result<(), String> {
    shell::run(Command::new("rustup").args(arguments).current_dir(root))
}

fn ensure_python() -> Result<(), String> {
    if shell::succeeds(Command::new("python3").arg("--version")) {
        return Ok(());
    }
    install(&["python3"])
}

/// The tests start an sshd of their own on a loopback port.
fn ensure_ssh() -> Result<(), String> {
    let has_sshd = SSHD.iter().any(|path| Path::new(path).exists());
    if has_sshd && shell::succeeds(Command::new("ssh").arg("-V")) {
        return Ok(());
    }
    install(&["openssh-client", "openssh-server"])
}

/// The emulator of ARM boards, and coreutils' `timeout`, which ends it.
pub fn ensure_qemu() -> Result<(), String> {
    let missing =
        ["qemu-system-arm", "timeout"].map(|program| !shell::succeeds(Command::new(program).arg("--version")));
    match missing {
        [false, false] => Ok(()),
        [_, false] => install(&["qemu-system-arm"]),
        [_, true] => install(&["qemu-system-arm", "coreutils"]),
    }
}

fn install(packages: &[&str]) -> Result<(), String> {
    // An image with empty package lists needs the update; elsewhere its failure may not matter.
    let _ = shell::run(&mut apt_get(&["update"]));
    shell::run(&mut apt_get(&[&["install", "--yes"], packages].concat()))
}

fn apt_get(arguments: &[&str]) -> Command {
    // The container of a typical check runs as root and has no sudo.
    let mut command = if shell::succeeds(Command::new("sudo").arg("--version")) {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    } else {
        Command::new("apt-get")
    };
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::channel;

    #[test]
    fn the_channel_is_read_from_the_toolchain_file() {
        let file = "# pinned\n[toolchain]\nchannel = \"1.95.0\"\nprofile = \"minimal\"\n";
        assert_eq!(channel(file), Some("1.95.0"));
        assert_eq!(channel("[toolchain]\n"), None);
    }
}
