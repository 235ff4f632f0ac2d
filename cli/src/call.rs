//! `farref call`: an expression, evaluated with a peer's objects.

use std::io::{self, Write};

use farref_pipe::{Connection, Value};

use crate::args::CallArgs;
use crate::eval;
use crate::exit::{Failure, blames_expression, written};
use crate::expr;
use crate::json;
use crate::look::look_at;
use crate::peer;
use crate::show;

/// Evaluates and prints.
pub fn run(args: &CallArgs) -> Result<(), Failure> {
    let source = &args.expr;
    // What is wrong with the command line is told before anything is started.
    let expr = expr::parse(source).map_err(|error| Failure::usage(&error).at(error.span, source))?;
    let url = args.url.parse().map_err(Failure::usage)?;
    let peer = peer::connect(&url)?;
    let value = eval::evaluate(peer.connection(), &expr).map_err(|fault| {
        let at_fault = blames_expression(&fault.error);
        let failure = Failure::from(peer.explain(fault.error));
        if at_fault { failure.at(fault.span, source) } else { failure }
    })?;
    let output = render(peer.connection(), value, args)?;
    let mut stdout = io::stdout();
    written(stdout.write_all(&output).and_then(|()| stdout.flush()))
}

fn render(connection: &Connection, value: Value, args: &CallArgs) -> Result<Vec<u8>, Failure> {
    match value {
        Value::Str(text) if args.raw => Ok(text.into_bytes()),
        Value::Bytes(bytes) if args.raw => Ok(bytes),
        _ if args.raw => Err(Failure::usage("--raw writes strings and bytes; the result is neither")),
        value if args.json => json::text(&look_at(connection, value)?).map(String::into_bytes),
        value => Ok(show::text(&look_at(connection, value)?).into_bytes()),
    }
}
