//! A chat room on TCP (`server 127.0.0.1:10101`) or on a Unix socket (`server ./chat`); one word more, and on many threads.

use std::{borrow::Cow, env, sync::Arc, sync::Mutex, sync::Weak, time::Duration};

use farref_tokio::{Action, Args, Async, AsyncObject, Directory, Error, Function, Member, Proxy, Reference, Remote};
use farref_tokio::{Server, ServerOptions, Value};
use tokio::{runtime::Builder, signal, time::timeout};

/// Who listens: each as long as they hold their seat. Dropping it is leaving, and so is to hang up or to crash.
#[derive(Default)]
struct Room(Mutex<Vec<Weak<Proxy>>>);

impl AsyncObject for Room {
    fn members(&self) -> Cow<'_, [Member]> {
        let join = "gives a seat; as long as you hold it, listener(text) hears what is said: join(listener)";
        vec![Member::method("join", join), Member::method("say", "tells how many have heard it: say(text)")].into()
    }

    async fn perform(&self, action: Action<'_>, mut args: Args) -> Result<Value, Error> {
        match (action, args.positional.pop()) {
            (Action::Method("join"), Some(Value::Reference(Reference::Remote(listener)))) => {
                let listener = Arc::new(listener);
                self.0.lock().unwrap().push(Arc::downgrade(&listener));
                // It is all that keeps the listener, and gives it when it is called.
                let seat = Function::inline(move |_| Ok(Reference::from(Proxy::clone(&listener)).into()));
                Ok(Reference::local(seat).into())
            }
            (Action::Method("say"), Some(Value::Str(text))) => {
                self.0.lock().unwrap().retain(|listener| listener.strong_count() > 0);
                let listeners: Vec<_> = self.0.lock().unwrap().iter().filter_map(Weak::upgrade).collect();
                let mut heard = 0;
                for listener in listeners {
                    let call = timeout(Duration::from_secs(5), listener.call([text.as_str()])).await;
                    heard += i64::from(matches!(call, Ok(Ok(_))));
                }
                Ok(heard.into())
            }
            (Action::Method(_), _) => Err(Error::bad_arguments("a function to call, or a text to say")),
            (other, _) => other.unsupported(),
        }
    }
}

fn main() -> Result<(), Error> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:10101".into());
    let mut runtime = if env::args().len() > 2 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    runtime.enable_all().build()?.block_on(async {
        let directory = Directory::new().with("room", "everybody talks here", Async(Room::default()));
        let server = Server::new(directory, ServerOptions::default());
        let address = match address.contains('/') {
            true => server.listen_unix(&address).await.map(|()| address)?,
            false => server.listen_tcp(&address).await?.to_string(),
        };
        println!("listening on {address}");
        signal::ctrl_c().await?;
        server.shut_down(Duration::from_secs(5)).await;
        Ok(())
    })
}
