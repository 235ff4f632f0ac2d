//! What a device serves.

use farref_core::dispatch::{Object, Objects, Root};
use farref_core::session::{Notice, ObjectKey, Return};

/// What a connection serves: objects by their key, of which some have names, and what is to be done about news.
///
/// Each connection has a service of its own. What it keeps of one session, references above all, is of no use in the next.
pub trait Service: Objects {
    /// The named objects: what the peer finds in the directory.
    fn roots(&self) -> &'static [Root];

    /// Something became true. A call that was put off and is [interrupted](Notice::Interrupted) still wants its reply.
    fn notice(&mut self, notice: Notice) {
        let _ = notice;
    }

    /// A call that an object made with [`Reply::call`](farref_core::dispatch::Reply::call) has its Return. The references that
    /// came with it are released afterwards.
    fn returned(&mut self, returned: &Return<'_>) {
        let _ = returned;
    }

    /// The session is over. References that are still held name nothing any more, and calls that were put off wait no more.
    fn over(&mut self) {}
}

/// Objects that are always there, with keys from 1 on in this order.
///
/// ```
/// use farref_core::dispatch::{Action, Arguments, Done, Object, Reply, Root};
/// use farref_core::session::ObjectKey;
/// use farref_embassy::Table;
///
/// struct Echo;
///
/// impl Object for Echo {
///     fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
///         match (action, args.int(0)) {
///             (Action::Call, Some(number)) => reply.int(number),
///             _ => reply.unsupported(),
///         }
///     }
/// }
///
/// const ROOTS: &[Root] = &[Root { name: "echo", key: ObjectKey(1), doc: "gives the number back: echo(number)" }];
/// let mut service = Table { roots: ROOTS, objects: &mut [&mut Echo] };
/// ```
pub struct Table<'t, 'o> {
    /// Their names.
    pub roots: &'static [Root],
    /// The objects.
    pub objects: &'t mut [&'o mut dyn Object],
}

impl Objects for Table<'_, '_> {
    fn object(&mut self, key: ObjectKey) -> Option<&mut dyn Object> {
        let place = usize::try_from(key.0).ok()?.checked_sub(1)?;
        match self.objects.get_mut(place) {
            Some(object) => Some(&mut **object),
            None => None,
        }
    }
}

impl Service for Table<'_, '_> {
    fn roots(&self) -> &'static [Root] {
        self.roots
    }
}
