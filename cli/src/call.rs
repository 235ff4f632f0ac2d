//! `farref call`: an expression, evaluated with a peer's objects.

use std::io::{self, Write};

use farref_pipe::{Connection, Value};

use crate::args::CallArgs;
use crate::eval::{self, Steps};
use crate::exit::{Failure, blames_expression, written};
use crate::expr::{self, Expr};
use crate::json;
use crate::look::look_at;
use crate::peer::{self, Peer};
use crate::show;
use crate::watch::{self, Limited, Watch};

/// Evaluates and prints.
pub fn run(args: &CallArgs) -> Result<(), Failure> {
    // What is wrong with the command line is told before anything is started.
    let expr = expr::parse(&args.expr).map_err(|error| Failure::usage(&error).at(error.span, &args.expr))?;
    let url = args.url.parse().map_err(Failure::usage)?;
    watch::over(args.client.timeout, Limited::Whole, |watch| {
        let peer = peer::connect(&url, &args.client, watch)?;
        let output = output(&peer, &expr, args, watch)?;
        watch.answered();
        let mut stdout = io::stdout();
        written(stdout.write_all(&output).and_then(|()| stdout.flush()))
    })
}

fn output(peer: &Peer, expr: &Expr, args: &CallArgs, watch: &Watch) -> Result<Vec<u8>, Failure> {
    let steps = Steps::default();
    let (unanswered, source) = (steps.clone(), args.expr.clone());
    watch.stage(move || match unanswered.first_unanswered() {
        Some(span) => format!("{} was not answered", shortened(source.get(span.start..span.end).unwrap_or(&source))),
        None => "what the result looks like was not answered".into(),
    });
    let value = eval::evaluate(peer.connection(), expr, &steps).map_err(|fault| {
        let at_fault = blames_expression(&fault.error);
        let failure = Failure::from(peer.explain(fault.error));
        if at_fault { failure.at(fault.span, &args.expr) } else { failure }
    })?;
    render(peer.connection(), value, args)
}

/// A step of an expression, without arguments of which there is too much for a line.
fn shortened(step: &str) -> String {
    /// Characters that are not too many.
    const MOST: usize = 60;
    match step.split_once('(') {
        Some((name, _)) if step.chars().count() > MOST => format!("{name}(…)"),
        _ => step.to_owned(),
    }
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
