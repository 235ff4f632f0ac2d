//! A real sshd on a loopback port with throwaway keys, for tests of what speaks over ssh.
//!
//! It needs nothing but OpenSSH's `sshd`, `ssh` and `ssh-keygen`, runs as whoever runs the test, and lets in the same user.
//!
//! ```no_run
//! use farref_conformance::sshd::Sshd;
//!
//! let sshd = Sshd::start(&["SetEnv GREETING=hello"]);
//! let told = std::process::Command::new("sh")
//!     .args(["-c", &format!("{} -p {} 127.0.0.1 'echo $GREETING'", sshd.ssh_command(), sshd.port())])
//!     .output()?;
//! assert_eq!(told.stdout, b"hello\n");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{env, fs, process, thread};

/// A running sshd, which ends with everybody who is logged in when this is dropped.
pub struct Sshd {
    child: Child,
    port: u16,
    folder: PathBuf,
    log: Arc<Mutex<String>>,
}

/// Nothing here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

impl Sshd {
    /// Starts one, with these lines before its own configuration: of two that say the same, sshd takes the first.
    ///
    /// # Panics
    /// If it does not start. What it says about that is in the message.
    pub fn start(lines: &[&str]) -> Self {
        let folder = Folder::new();
        generate_key(&folder.0.join("host_key"));
        generate_key(&folder.0.join("key"));
        // For root, sshd locks its unprivileged part up in here.
        let _ = fs::create_dir_all("/run/sshd");
        // Between finding a free port and taking it somebody else may have taken it.
        let mut faults = String::new();
        for _ in 0..5 {
            match Self::try_start(&folder.0, lines) {
                Ok(sshd) => {
                    std::mem::forget(folder);
                    return sshd;
                }
                Err(fault) => faults.push_str(&fault),
            }
        }
        panic!("sshd does not start:\n{faults}")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The `ssh` that is let in, as a line for a shell or for `FARREF_SSH`; host, port and command are to be added.
    pub fn ssh_command(&self) -> String {
        self.ssh_command_with("")
    }

    /// The same, with other options before, which win.
    pub fn ssh_command_with(&self, options: &str) -> String {
        let file = |name| self.folder.join(name).display().to_string();
        format!(
            "ssh {options} -F none -i '{}' -o IdentitiesOnly=yes -o IdentityAgent=none -o GlobalKnownHostsFile=/dev/null \
             -o 'UserKnownHostsFile=\"{}\"' -o StrictHostKeyChecking=yes",
            file("key"),
            file("known_hosts"),
        )
    }

    /// A folder for files of the test's own, which goes with the sshd.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cuts all connections at once, as if the machine had gone. New ones are taken.
    pub fn cut(&self) {
        for session in sessions(self.child.id()) {
            kill(session);
        }
    }

    fn try_start(folder: &Path, lines: &[&str]) -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let quoted = |name| format!("\"{}\"", folder.join(name).display());
        let config = format!(
            "{}\nListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPrintMotd no\nMaxStartups 1000\n",
            lines.join("\n"),
            quoted("host_key"),
            quoted("key.pub"),
        );
        fs::write(folder.join("sshd_config"), config).expect("a file");
        let host_key = fs::read_to_string(folder.join("host_key.pub")).expect("a key");
        fs::write(folder.join("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).expect("a file");

        // It wants an absolute path, since it starts itself again for each connection.
        let mut child = Command::new(program())
            .args(["-D", "-e", "-f"])
            .arg(folder.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sshd starts");
        let stderr = child.stderr.take().expect("a pipe");
        let sshd = Self { child, port, folder: folder.into(), log: Arc::default() };
        match sshd.listens(stderr) {
            true => Ok(sshd),
            false => {
                let log = sshd.log();
                sshd.stop();
                Err(log)
            }
        }
    }

    /// Reads what it logs, and tells when it says that it listens.
    fn listens(&self, stderr: ChildStderr) -> bool {
        let (tell, told) = mpsc::channel();
        let log = self.log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let listens = line.starts_with("Server listening");
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
                if listens {
                    let _ = tell.send(());
                }
            }
        });
        told.recv_timeout(PATIENCE).is_ok()
    }

    /// Stops it, and leaves its folder.
    fn stop(mut self) {
        self.kill_all();
        self.folder = PathBuf::new();
    }

    fn kill_all(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // Stopped first, so that it starts nothing between the look and the end.
        signal(self.child.id(), "-STOP");
        let sessions = sessions(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
        sessions.into_iter().for_each(kill);
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill_all();
        drop(Folder(std::mem::take(&mut self.folder)));
    }
}

/// A folder that only we can read: ssh refuses keys that others can.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("farref-sshd-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Generates a key in this file, and its public half beside it.
///
/// # Panics
/// If ssh-keygen does not.
pub fn generate_key(file: &Path) {
    let done = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
    assert!(done.expect("ssh-keygen starts").success(), "no key in {}", file.display());
}

fn program() -> PathBuf {
    let usual = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd", "/sbin/sshd"].map(PathBuf::from);
    let found = usual.into_iter().find(|path| path.exists());
    found.expect("sshd is installed: `cargo xtask setup` does that, or: apt-get install openssh-server")
}

/// The children of a process: one for each connection.
fn sessions(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|&process| parent(process) == Some(of)).collect()
}

fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn kill(process: u32) {
    signal(process, "-KILL");
}

fn signal(process: u32, name: &str) {
    let _ = Command::new("kill").args([name, &process.to_string()]).stderr(Stdio::null()).status();
}
