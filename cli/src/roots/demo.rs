//! Roots for the demonstration and the tests.

use std::sync::Arc;
use std::{process, thread};

use farref_pipe::{Args, Directory, Error, List, Reference, Remote, Value};

use super::params::Signature;
use super::{Share, count, routine};

/// With roots that have nothing to do with files.
pub fn demo(directory: Directory, share: &Arc<Share>) -> Directory {
    directory
        .with("apply", "calls a function: apply(function, argument)", routine(share, APPLY, apply))
        .with("divide", "the quotient of two integers: divide(a, b)", routine(share, DIVIDE, divide))
        .with("echo", "gives back what it gets: echo(value)", routine(share, ECHO, echo))
        .with("hang", "never answers: hang()", routine(share, HANG, hang))
        .with("print", "prints to standard output, and has a shell do it: print(text)", routine(share, PRINT, print))
        .with("squares", "a list of square numbers, by reference: squares(n)", routine(share, SQUARES, squares))
        .with("tables", "how full the tables are on this side: tables()", routine(share, TABLES, tables))
}

const APPLY: Signature = Signature { text: "apply(function, argument)", names: &["function", "argument"], required: 2 };
const DIVIDE: Signature = Signature { text: "divide(a, b)", names: &["a", "b"], required: 2 };
const ECHO: Signature = Signature { text: "echo(value)", names: &["value"], required: 1 };
const HANG: Signature = Signature { text: "hang()", names: &[], required: 0 };
const PRINT: Signature = Signature { text: "print(text)", names: &["text"], required: 1 };
const SQUARES: Signature = Signature { text: "squares(n)", names: &["n"], required: 1 };
const TABLES: Signature = Signature { text: "tables()", names: &[], required: 0 };

fn apply(_: &Arc<Share>, args: Args) -> Result<Value, Error> {
    let mut args = APPLY.bind(args)?;
    match args.reference(0)? {
        Reference::Remote(function) => function.call([args.value(1)]),
        _ => Err(args.wrong(0, "an object of the caller")),
    }
}

fn divide(_: &Arc<Share>, args: Args) -> Result<Value, Error> {
    let mut args = DIVIDE.bind(args)?;
    match (args.integer(0)?, args.integer(1)?) {
        (Some(_), Some(0)) => Err(Error::raise("ZeroDivisionError", "division by zero")),
        (Some(a), Some(b)) => {
            a.checked_div_euclid(b).map(Value::Int).ok_or_else(|| Error::raise("OverflowError", "beyond 64 bits"))
        }
        _ => Err(DIVIDE.fault("two integers")),
    }
}

fn echo(_: &Arc<Share>, args: Args) -> Result<Value, Error> {
    Ok(ECHO.bind(args)?.value(0))
}

fn hang(_: &Arc<Share>, args: Args) -> Result<Value, Error> {
    HANG.bind(args)?;
    eprintln!("process {} hangs", process::id());
    loop {
        thread::park();
    }
}

/// What a library might do that knows nothing of protocols.
fn print(_: &Arc<Share>, args: Args) -> Result<Value, Error> {
    let text = PRINT.bind(args)?.required_text(0)?;
    println!("{text}");
    let mut shell = process::Command::new("sh");
    let status = shell.args(["-c", "echo \"$0 from a shell\"", &text]).status()?;
    Ok(Value::Bool(status.success()))
}

fn squares(_: &Arc<Share>, args: Args) -> Result<Value, Error> {
    let numbers = SQUARES.bind(args)?.count(0)?.filter(|&n| n <= 1_000_000);
    let numbers = numbers.ok_or_else(|| SQUARES.fault("n has to be 1,000,000 or less"))?;
    Ok(Reference::local(List::new((0..numbers).map(|n| count(n * n)).collect())).into())
}

fn tables(share: &Arc<Share>, args: Args) -> Result<Value, Error> {
    TABLES.bind(args)?;
    let tables = share.connection().tables();
    // The call that asks is one of the answers, and does not count itself; nor does the directory, which is always there.
    let entries = [
        ("exports", tables.exports.saturating_sub(1)),
        ("imports", tables.imports),
        ("questions", tables.questions),
        ("answers", tables.answers.saturating_sub(1)),
    ];
    Ok(Value::Map(entries.map(|(name, size)| (name.into(), i64::from(size).into())).into()))
}
