//! What can go wrong on the way to a peer behind an sshd: each fault is one error that names it. `cli/tests/ssh.rs` has
//! what goes right.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use farref_conformance::sshd::{Sshd, generate_key};
use farref_pipe::{Directory, Error, Options, Ssh};

/// Runs something that must not hang.
fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waiting) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    waiting.recv_timeout(Duration::from_secs(60)).expect("it neither hangs nor panics")
}

/// Words of a line of shell, as `FARREF_SSH` has them.
fn ssh(line: &str) -> Ssh {
    Ssh::new(shell_words::split(line).expect("words")).login_within(Duration::from_secs(30)).quiet()
}

fn fault_at(ssh: &Ssh, url: &str) -> (ErrorKind, String) {
    let (ssh, target) = (ssh.clone(), url.parse().expect("a URL"));
    let opened = within(move || ssh.connect(&target, Directory::new(), Options::default()).err());
    match opened.expect("nobody answers") {
        Error::Io(kind, text) => (kind, text),
        other => panic!("{other:?}"),
    }
}

/// Of a command that sshd lets us run.
fn fault_of(command: &str) -> (ErrorKind, String) {
    let sshd = Sshd::start(&[]);
    let (kind, text) = fault_at(&ssh(&sshd.ssh_command()), &format!("ssh://127.0.0.1:{}/{command}", sshd.port()));
    assert!(sshd.log().contains("Accepted publickey"), "{text}: {}", sshd.log());
    (kind, text.replace(&format!(":{}", sshd.port()), ":PORT"))
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let (kind, text) = fault_of("no-such-farref serve --stdio");
    assert_eq!(kind, ErrorKind::NotFound);
    let expected = "the remote command \"no-such-farref serve --stdio\" is not found on 127.0.0.1; \
                    a URL may name another, such as ssh://127.0.0.1:PORT//usr/local/bin/farref serve --stdio: ";
    assert!(text.starts_with(expected) && text.contains("not found"), "{text}");
    let (kind, text) = fault_of("/etc/passwd");
    assert_eq!(kind, ErrorKind::PermissionDenied);
    assert!(text.starts_with("the remote command \"/etc/passwd\" cannot be run on 127.0.0.1;"), "{text}");
}

#[test]
fn a_command_that_ends_is_told_with_its_status_and_its_last_words() {
    let (kind, text) = fault_of("echo one >&2; echo 'two\x1b[2J' >&2; exit 3");
    assert_eq!(kind, ErrorKind::ConnectionAborted);
    assert!(
        text.ends_with("on 127.0.0.1:PORT ended before it answered (exit status: 3): one; two\\u{1b}[2J"),
        "{text}"
    );
}

/// What a login shell does that has no farref, or that nobody may use.
#[test]
fn who_only_says_a_banner_is_no_peer() {
    let (kind, text) = fault_of("echo; echo 'This account is not available.'; exit 1");
    assert_eq!(kind, ErrorKind::InvalidData);
    let expected = "on 127.0.0.1:PORT is no farref peer (exit status: 1); it wrote \"This account is not available.\"";
    assert!(text.ends_with(expected), "{text}");
    // And one that never ends.
    assert_eq!(fault_of("yes 'no farref'").0, ErrorKind::InvalidData);
}

#[test]
fn a_wrong_host_key_is_told_from_an_unknown_one() {
    let sshd = Sshd::start(&[]);
    let url = format!("ssh://127.0.0.1:{}", sshd.port());
    let other = sshd.folder().join("other");
    generate_key(&other);
    let key = std::fs::read_to_string(other.with_extension("pub")).expect("a key");
    let known = sshd.folder().join("known_wrongly");
    std::fs::write(&known, format!("[127.0.0.1]:{} {key}", sshd.port())).expect("a file");
    let with =
        |known: &std::path::Path| ssh(&sshd.ssh_command_with(&format!("-o 'UserKnownHostsFile={}'", known.display())));
    let (kind, text) = fault_at(&with(&known), &url);
    assert_eq!(kind, ErrorKind::InvalidData);
    assert!(text.starts_with("the host key of 127.0.0.1 is not the one that is known: "), "{text}");
    assert!(text.ends_with("Host key verification failed."), "{text}");
    let (kind, text) = fault_at(&with(&sshd.folder().join("nothing")), &url);
    assert_eq!(kind, ErrorKind::InvalidData);
    assert!(text.starts_with("the host key of 127.0.0.1 is not known; connect to it with ssh once: "), "{text}");
}

/// The sshd would take a password, but there is nobody to ask.
#[test]
fn a_login_that_is_not_permitted_is_told() {
    let sshd = Sshd::start(&["PasswordAuthentication yes"]);
    let no_key = ssh(&sshd.ssh_command_with("-o BatchMode=yes -o PubkeyAuthentication=no"));
    let (kind, text) = fault_at(&no_key, &format!("ssh://127.0.0.1:{}", sshd.port()));
    assert_eq!(kind, ErrorKind::PermissionDenied);
    assert!(text.starts_with(&format!("127.0.0.1:{} permits no login", sshd.port())), "{text}");
    assert!(text.ends_with("Permission denied (publickey,password)."), "{text}");
}

#[test]
fn hosts_that_cannot_be_reached_are_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let plain = ssh("ssh -F none");
    let (kind, text) = fault_at(&plain, &format!("ssh://127.0.0.1:{nobody}"));
    assert_eq!(kind, ErrorKind::ConnectionRefused);
    let expected = format!(
        "127.0.0.1:{nobody} refuses the connection; no sshd listens there: \
         ssh: connect to host 127.0.0.1 port {nobody}: Connection refused"
    );
    assert_eq!(text, expected);
    // Names that cannot exist: RFC 6761, section 6.4.
    let (kind, text) = fault_at(&plain, "ssh://nowhere.invalid");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.starts_with("the host nowhere.invalid is not found: ssh: Could not resolve"), "{text}");
    let (kind, text) = fault_at(&ssh("/no/such/ssh"), "ssh://host");
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.starts_with("cannot start /no/such/ssh: No such"), "{text}");
}

/// A host that takes the connection and says nothing: the limit holds, and the ssh does not live on.
#[test]
fn silence_has_a_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("ssh://127.0.0.1:{}", silent.local_addr().expect("an address").port());
    let ssh = Ssh::new(["ssh", "-F", "none"]).login_within(Duration::from_millis(100)).quiet();
    let options = Options { handshake: Duration::from_millis(50), ..Options::default() };
    let (connecting, place) = (target.parse().expect("a URL"), target.replace("ssh://", ""));
    let error = within(move || ssh.connect(&connecting, Directory::new(), options).err()).expect("nobody answers");
    let expected = format!("{place}: no farref peer answered within 150ms");
    assert_eq!(error, Error::Io(ErrorKind::TimedOut, expected));
    // Its end of the connection is closed, which is so when it has ended.
    let (mut stream, _) = silent.accept().expect("it connected");
    within(move || std::io::Read::read_to_end(&mut stream, &mut Vec::new())).expect("the end");
}

/// What ssh is started with: nothing that a URL says is an option, and the command is one word.
#[test]
fn the_words_of_a_url_are_no_options() {
    let shows = Ssh::new(["sh", "-c", "for word; do echo \"word $word\" >&2; done; exit 9", "ssh"]).quiet();
    let (_, text) = fault_at(&shows, "ssh://me@host:2222/-oProxyCommand=x 'a  b'");
    // The last lines are quoted.
    let words = "; word 2222; word --; word host; word -oProxyCommand=x 'a  b'";
    assert!(text.ends_with(words), "{text}");
    let (_, text) = fault_at(&shows, "ssh://host");
    assert!(text.contains("; word none; word ") || text.contains(": word none; word "), "{text}");
    assert!(text.ends_with("; word --; word host; word farref serve --stdio"), "{text}");
}
