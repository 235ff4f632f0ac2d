//! What a user sees.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rustix::termios::tcgetattr;
use tokio::process::Command;

use crate::qemu::Guest;

pub async fn over_tcp(guest: Arc<Guest>) {
    let url = format!("tcp://{}", guest.address());
    shows_what_is_expected(&guest, &url).await;
}

/// The port is a terminal, which has a rate like any other and does not care.
pub async fn over_serial_port(guest: Arc<Guest>) {
    let path = guest.terminal();
    shows_what_is_expected(&guest, &format!("serial:{}", path.display())).await;
    for rate in [115_200, 9600] {
        farref(&guest, &["ls", &format!("serial:{}?baud={rate}", path.display())]).await;
        let port = File::options().read(true).write(true).open(&path).expect("a terminal");
        assert_eq!(tcgetattr(&port).expect("it has a rate").output_speed(), rate);
    }
}

/// The same at any URL.
async fn shows_what_is_expected(guest: &Guest, url: &str) {
    let listed = farref(guest, &["ls", url]).await;
    assert_eq!(
        listed,
        "led     a light to be switched\n\
         button  calls whoever subscribes when it is pressed\n\
         sensor  measures the temperature\n\
         store   keeps objects and small values until you leave\n\
         log     what happened here\n\
         system  the firmware: its version, uptime, memory, a reboot\n"
    );
    assert_eq!(farref(guest, &["call", url, "led.set(true)"]).await, "");
    assert_eq!(farref(guest, &["call", url, "led.on"]).await, "true\n");
    let samples = farref(guest, &["call", url, "sensor.samples(5)"]).await;
    let samples: Vec<_> = samples.trim().trim_matches(['(', ')']).split(", ").map(str::parse::<f64>).collect();
    assert!(samples.len() == 5 && samples.iter().all(|sample| matches!(sample, Ok(15.0..=30.0))), "{samples:?}");
    // Each member comes with its line.
    let described = farref(guest, &["call", url, "led"]).await;
    assert!(described.contains("switch it over, and tell whether it is on now"), "{described}");
    let (status, error) = fails(guest, &["call", url, "store.get(\"nothing\")"]).await;
    assert_eq!((status, error.as_str()), (Some(1), "farref: KeyError: nothing\n"));
}

async fn farref(guest: &Guest, arguments: &[&str]) -> String {
    let output = run(guest, arguments).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "farref {arguments:?}: {}: {error}", output.status);
    String::from_utf8(output.stdout).expect("it is text")
}

async fn fails(guest: &Guest, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(guest, arguments).await;
    (output.status.code(), String::from_utf8(output.stderr).expect("it is text"))
}

async fn run(guest: &Guest, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(guest.cli());
    command.args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(20), command.output()).await;
    output.expect("it ends in time").expect("it is started")
}
