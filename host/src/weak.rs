//! Weak references to objects of this process (REF-10).

use std::sync::{Arc, Weak};

use crate::args::Args;
use crate::end::Mourners;
use crate::error::Error;
use crate::object::{Action, Object, Runs};
use crate::value::{Reference, Value};

/// Stands for an object that it does not hold.
pub(crate) struct WeakRef {
    object: Weak<dyn Object>,
    mourners: Option<Mourners>,
}

impl Object for WeakRef {
    fn runs(&self) -> Runs {
        Runs::Inline
    }

    fn is_concurrent(&self) -> bool {
        true
    }

    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        match action {
            Action::Upgrade => Ok(self.object.upgrade().map_or(Value::None, |object| Reference::Local(object).into())),
            Action::Text(_) => Ok(Value::from("<weak reference>")),
            other => other.unsupported(),
        }
    }

    fn weak_of(&self) -> Option<&Weak<dyn Object>> {
        Some(&self.object)
    }

    fn mourners(&self) -> Option<&Mourners> {
        self.mourners.as_ref()
    }
}

impl Reference {
    /// A weak reference to an object of this process: a peer that has it does not hold the object. What it
    /// [upgrades](crate::Remote::upgrade) to is the object itself, or none when that is gone; then the peer's
    /// [monitors](crate::Proxy::down) are told, too: at once if the object has [mourners](Object::mourners) or was last held by
    /// the session, otherwise with the next message.
    pub fn weak(object: &Arc<dyn Object>) -> Self {
        let mourners = object.mourners().map(Mourners::of_weak);
        Self::Local(Arc::new(WeakRef { object: Arc::downgrade(object), mourners }))
    }
}
