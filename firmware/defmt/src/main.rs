//! `farref-firmware-defmt FIRMWARE`: shows, line by line, what that firmware tells by defmt on standard input.

use std::error::Error;
use std::io::{self, Read};
use std::process::ExitCode;
use std::{env, fs};

use defmt_decoder::{DecodeError, Table};

fn main() -> ExitCode {
    let Some(firmware) = env::args().nth(1) else {
        eprintln!("error: it wants the firmware, and on standard input what that tells");
        return ExitCode::from(2);
    };
    match show(&firmware) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {firmware}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(firmware: &str) -> Result<(), Box<dyn Error>> {
    let table = Table::parse(&fs::read(firmware)?)?.ok_or("it is built without defmt")?;
    let mut decoder = table.new_stream_decoder();
    let mut chunk = [0; 1024];
    loop {
        let count = io::stdin().read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        decoder.received(&chunk[..count]);
        loop {
            match decoder.decode() {
                Ok(frame) => println!("{}", frame.display_message()),
                // Text, which other code has put there.
                Err(DecodeError::Malformed) => {}
                Err(DecodeError::UnexpectedEof) => break,
            }
        }
    }
}
