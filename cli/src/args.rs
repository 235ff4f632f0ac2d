//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

use crate::exit::EXIT_CODES;
use crate::listen::ListenArgs;
use crate::security::{KeyArgs, SecurityArgs};

/// Use another process's objects.
#[derive(Debug, Parser)]
#[command(name = "farref", version, after_help = EXIT_CODES)]
pub struct CommandLine {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the files of a folder, on standard input and output or to all who connect
    Serve(ServeArgs),
    /// Evaluate an expression with a peer's objects and print the result
    Call(CallArgs),
    /// List what a peer offers by name
    Ls(LsArgs),
    /// Copy a file of a peer here
    Get(GetArgs),
    /// Copy a file of this side to a peer
    Put(PutArgs),
    /// List the serial ports of this machine, and what is plugged in there
    Ports(PortsArgs),
    /// Print what a shell needs to complete this program's command lines
    #[command(after_help = EXIT_CODES)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Make a new key that only you can read, for --key
    Key(KeyArgs),
    /// Show what references are about, with a second process of this program
    #[command(after_help = EXIT_CODES)]
    Demo,
}

/// How to serve.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct ServeArgs {
    /// Speak on standard input and output
    #[arg(long, required_unless_present = "urls")]
    pub stdio: bool,
    /// The folder to serve, with --stdio the current one unless another is named; nothing outside of it can be reached
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, required = false, required_unless_present = "stdio")]
    #[arg(default_value_if("stdio", clap::builder::ArgPredicate::IsPresent, "."))]
    pub root: PathBuf,
    /// Let peers write, too
    #[arg(long)]
    pub write: bool,
    /// Go on for so long without a peer when standard input has ended, for one that comes back with --resume: with the next
    /// "farref serve --stdio --park" of this user on this machine, which ssh starts for it
    #[arg(long, value_name = "SECONDS", requires = "stdio", value_parser = seconds)]
    pub park: Option<Duration>,
    /// Serve what the demonstration and the tests want besides
    #[arg(long, hide = true, conflicts_with = "urls")]
    pub demo: bool,
    #[command(flatten)]
    pub listen: ListenArgs,
}

/// What all commands have that use a peer.
#[derive(Args, Debug)]
pub struct ClientArgs {
    /// Give up if the peer takes longer: for the handshake and all answers together; with get and put for each step
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// When the connection is lost, try so long to go on over another one. The server has to keep the session meanwhile; what
    /// --listen serves does, and with ssh: and pipe: what was started with --park, which an ssh: URL without a command is; a
    /// serial port that is unplugged is opened again
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub resume: Option<Duration>,
    #[command(flatten)]
    pub security: SecurityArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|limit| !limit.is_zero()).ok_or_else(|| "a number above 0, such as 5 or 0.5, is wanted".into())
}

/// What to evaluate where.
#[derive(Args, Debug)]
#[command(after_help = format!("{CALL_HELP}\n\n{URL_HELP}\n\n{EXIT_CODES}"))]
pub struct CallArgs {
    /// The peer, such as ssh://user@host or "pipe:farref serve --stdio --root ."
    pub url: String,
    /// What to evaluate, such as 'open("notes.txt").read()'
    #[arg(allow_hyphen_values = true)]
    pub expr: String,
    /// Print one line of JSON
    #[arg(long, conflicts_with = "raw")]
    pub json: bool,
    /// Write a string or bytes as they are, with nothing added
    #[arg(long)]
    pub raw: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Whose roots to list.
#[derive(Args, Debug)]
#[command(after_help = format!("{URL_HELP}\n\n{EXIT_CODES}"))]
pub struct LsArgs {
    /// The peer, such as ssh://user@host or "pipe:farref serve --stdio --root ."
    pub url: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// How to list the serial ports.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct PortsArgs {
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// What to copy from where to where here.
#[derive(Args, Debug)]
#[command(after_help = format!("{GET_HELP}\n\n{URL_HELP}\n\n{EXIT_CODES}"))]
pub struct GetArgs {
    /// The peer, such as ssh://user@host or "pipe:farref serve --stdio --root ."
    pub url: String,
    /// The file of the peer
    pub path: String,
    /// The file or folder here, "-" for standard output; if not told, the current folder
    #[arg(value_hint = ValueHint::AnyPath)]
    pub local: Option<PathBuf>,
    /// Do not show how far it is
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to copy from here to where.
#[derive(Args, Debug)]
#[command(after_help = format!("{PUT_HELP}\n\n{URL_HELP}\n\n{EXIT_CODES}"))]
pub struct PutArgs {
    /// The peer, such as "ssh://user@host/farref serve --stdio --write"
    pub url: String,
    /// The file here, "-" for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub local: PathBuf,
    /// The file of the peer, or a folder of it with a "/" at the end
    pub path: String,
    /// Do not show how far it is
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

const GET_HELP: &str = "\
What is there is replaced when the copy is complete, and keeps its permissions; until then, and if anything goes wrong, \
it stays as it was. A device or a FIFO is written as it is. A new file gets the permissions of the peer's. Folders are \
not copied, nor are FIFOs and devices of the peer, nor files whose names are not UTF-8.";

const PUT_HELP: &str = "\
The peer has to be served with --write. What is there is replaced when the copy is complete, and keeps its permissions; \
until then, and if anything goes wrong, it stays as it was. A new file gets the permissions of the one here. Folders \
are not copied. PATH is UTF-8, whatever the name here is.";

const CALL_HELP: &str = r#"Expressions:
  open("notes.txt").read()      call a root, then a method of what it gives: one round trip
  open("a", mode="rb")          arguments by position and by name
  stat("a")["size"]             attributes (x.name), items (x[key]), calls (x(...))
  f(g(1), [1, 2], {"k": none})  chains as arguments are not waited for; lists and maps are lent
  Literals: numbers of any size, "text", b"bytes", true, false, none, (tuples,), [lists], {maps}

JSON:
  Tuples, lists and sets are arrays, maps with text keys are objects, integers are exact. Else:
  {"$bytes": "base64"}                        bytes
  {"$float": "inf" | "-inf" | "nan"}          floats that JSON has no number for
  {"$int": "0x..."}                           integers of more than 150,000 digits
  {"$map": [[key, value], ...]}               maps with other keys, or a key that starts with $
  {"$exception": "name", "args": [...]}       exceptions
  {"$ref": "text form"}                       other objects
  {"$not_implemented": true}                  not-implemented"#;

/// How peers are named, for `--help`.
const URL_HELP: &str = r#"URLs:
  pipe:COMMAND                       a program to start, split into words as a shell does
  ssh://[USER@]HOST[:PORT]/[COMMAND]
                                     a program on another machine, reached by ssh; without
                                     a command it is "farref serve --stdio". Anything in
                                     it may be percent-encoded, % has to be (%25).
  tcp://[HOST][:PORT], tls://[HOST][:PORT], unix:PATH
                                     a server that listens there, at this machine and port
                                     10101 unless the URL says something else
  serial:PORT[?baud=RATE]            whoever is at the other end of a serial port, such as
                                     serial:/dev/ttyACM0; 115,200 baud unless told.
                                     "farref ports" lists what is plugged in.
  The environment variable FARREF_SSH names the ssh to use, such as "ssh -F none -i key"."#;
