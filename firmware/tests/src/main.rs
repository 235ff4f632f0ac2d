//! Runs the firmware in QEMU, and looks at it from the host.
//!
//! `farref-firmware-tests --elf FIRMWARE [--fixtures FIRMWARE] [--defmt FIRMWARE --decoder PROGRAM] --cli FARREF --board NAME
//! [FILTER]...`. Each test has a guest of its own and so long a time; a guest that panics or ends fails its test, with what it
//! said.

mod cli;
mod cut;
mod defmt;
mod device;
mod flood;
mod line;
mod program;
mod qemu;
mod suite;

use std::future::Future;
use std::panic;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use program::{Arguments, Firmware};
use qemu::{Guest, Line};
use tokio::signal::unix::{SignalKind, signal};

/// What a test does with its guest. It fails by panicking.
type Run = fn(Arc<Guest>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A test by its name, and for how long it may run.
struct Test {
    name: &'static str,
    limit: Duration,
    run: Run,
    firmware: Firmware,
    line: Line,
}

const fn test(name: &'static str, seconds: u64, run: Run) -> Test {
    Test { name, limit: Duration::from_secs(seconds), run, firmware: Firmware::Device, line: Line::Socket }
}

const fn of_fixtures(name: &'static str, seconds: u64, run: Run) -> Test {
    Test { firmware: Firmware::Fixtures, ..test(name, seconds, run) }
}

const fn of_defmt(name: &'static str, seconds: u64, run: Run) -> Test {
    Test { firmware: Firmware::Defmt, ..test(name, seconds, run) }
}

const fn at_terminal(name: &'static str, seconds: u64, run: Run) -> Test {
    Test { line: Line::Terminal, ..test(name, seconds, run) }
}

const TESTS: &[Test] = &[
    test("tcp/calls_and_an_exception", 30, |guest| Box::pin(device::calls(guest))),
    test("tcp/a_button_calls_back", 30, |guest| Box::pin(device::callbacks(guest))),
    test("tcp/references_are_kept_and_released", 30, |guest| Box::pin(device::references(guest))),
    test("tcp/samples_are_delivered", 30, |guest| Box::pin(device::samples(guest))),
    test("tcp/the_device_calls_within_a_call", 30, |guest| Box::pin(device::nested(guest))),
    test("tcp/two_sessions_and_the_line_share_the_device", 30, |guest| Box::pin(device::shared(guest))),
    test("tcp/one_session_too_many_is_told_so", 30, |guest| Box::pin(device::too_many(guest))),
    test("tcp/a_reboot_is_known", 60, |guest| Box::pin(device::reboot(guest))),
    test("tcp/sessions_go_on_when_connections_are_cut", 120, |guest| Box::pin(device::resume(guest))),
    test("serial/a_good_line", 60, |guest| Box::pin(line::good(guest))),
    test("serial/each_call_once_on_a_bad_line", 240, |guest| Box::pin(line::bad(guest))),
    test("serial/a_line_that_is_unplugged", 120, |guest| Box::pin(line::unplugged(guest))),
    test("flood/garbage", 120, |guest| Box::pin(flood::garbage(guest))),
    test("flood/frames_at_wire_speed", 120, |guest| Box::pin(flood::frames(guest))),
    test("flood/a_thousand_sessions_over_tcp", 240, |guest| Box::pin(flood::abandoned(guest))),
    test("flood/a_thousand_sessions_on_the_line", 240, |guest| Box::pin(flood::abandoned_on_line(guest))),
    test("cli/list_call_and_samples", 60, |guest| Box::pin(cli::over_tcp(guest))),
    at_terminal("cli/the_same_over_a_serial_port", 120, |guest| Box::pin(cli::over_serial_port(guest))),
    of_defmt("defmt/what_happens_to_sessions_is_told", 60, |guest| Box::pin(defmt::sessions(guest))),
    of_fixtures("suite/over_tcp", 240, |guest| Box::pin(suite::over_tcp(guest))),
    of_fixtures("suite/on_the_line", 240, |guest| Box::pin(suite::on_the_line(guest))),
];

/// What the last test said that failed.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    panic::set_hook(Box::new(|info| {
        // No test runs there.
        if std::thread::current().name() == Some("main") {
            eprintln!("{info}");
        }
        if let Ok(mut said) = PANIC.lock() {
            *said = Some(info.to_string());
        }
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let code = runtime.block_on(async {
        tokio::select! {
            code = run(&arguments) => code,
            () = interrupted() => ExitCode::from(130),
        }
    });
    // What holds a guest is dropped, and the guest with it; a thread that still waits for one is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(5));
    code
}

/// Waits until this process is asked to end.
async fn interrupted() {
    let mut terminated = signal(SignalKind::terminate()).expect("a handler");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// Runs all that were asked for, one after the other.
async fn run(arguments: &Arguments) -> ExitCode {
    let selected: Vec<&Test> = TESTS.iter().filter(|test| arguments.selects(test.name, test.firmware)).collect();
    println!("\nrunning {} tests on {}", selected.len(), arguments.board);
    let start = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    for test in &selected {
        let begin = Instant::now();
        let outcome = run_one(test, arguments).await;
        let (verdict, said) = match &outcome {
            Ok(said) => ("ok", said),
            Err(error) => ("FAILED", error),
        };
        *(if outcome.is_ok() { &mut passed } else { &mut failed }) += 1;
        println!(
            "test {}/{} ... {verdict} ({:.1} s) {said}",
            arguments.board,
            test.name,
            begin.elapsed().as_secs_f64()
        );
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let (filtered, seconds) = (TESTS.len() - selected.len(), start.elapsed().as_secs_f64());
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out; \
         finished in {seconds:.2}s\n"
    );
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run_one(test: &Test, arguments: &Arguments) -> Result<String, String> {
    let elf = arguments.elf(test.firmware).ok_or("there is no such firmware")?;
    let guest = Arc::new(Guest::start(arguments, elf, test.line, test.limit + Duration::from_secs(10)).await?);
    let mut task = tokio::spawn((test.run)(guest.clone()));
    let outcome = tokio::select! {
        outcome = &mut task => match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(PANIC.lock().ok().and_then(|mut said| said.take()).unwrap_or_else(|| error.to_string())),
        },
        said = guest.ended() => Err(format!("the guest ended: {said}")),
        () = tokio::time::sleep(test.limit) => Err(format!("takes longer than {:?}", test.limit)),
    };
    if !task.is_finished() {
        // It lets go of the guest.
        task.abort();
        let _ = task.await;
    }
    match outcome {
        Ok(()) if test.firmware == Firmware::Fixtures => Ok(String::new()),
        Ok(()) => guest.marks().await,
        // What the guest said is more than what was felt of it.
        Err(error) => match guest.last_words().await {
            Some(words) => Err(format!("the guest ended: {words}")),
            None => Err(format!("{error}\n  the guest said: {}", guest.said())),
        },
    }
}
