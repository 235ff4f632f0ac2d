//! Goes to the room of `server`: `client 127.0.0.1:10101 ada`, or `client ./chat ada`; one word more, and on many threads.
//! What comes on standard input is said, and what is said is shown.

use std::env;

use farref_tokio::{Directory, Error, Function, Options, Reference, Remote, Value, connect_tcp, connect_unix};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::runtime::Builder;

async fn chat(address: &str, name: &str) -> Result<(), Error> {
    let connection = match address.contains('/') {
        true => connect_unix(address, Directory::new(), Options::default()).await?,
        false => connect_tcp(address, Directory::new(), Options::default()).await?,
    };
    // An object of our own: the room calls it. A text is somebody else's, so it is shown escaped.
    let listener = Function::inline(|args| match args.get(0) {
        Some(Value::Str(text)) => {
            println!("{text:?}");
            Ok(Value::None)
        }
        _ => Err(Error::bad_arguments("a text")),
    });
    // One round trip: `join` goes to what the directory will answer.
    let room = connection.root().promise_get("room").await?;
    // We are there until it is dropped.
    let _seat = room.invoke("join", [Reference::local(listener)]).await?;

    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        // The room calls us back before this returns.
        let heard = room.invoke("say", [format!("{name}: {line}")]).await?;
        println!("heard by {}", heard.as_int().unwrap_or_default());
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let mut words = env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:10101".into());
    let name = words.next().unwrap_or("somebody".into());
    let mut runtime = if words.len() > 0 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    runtime.enable_all().build()?.block_on(chat(&address, &name))
}
