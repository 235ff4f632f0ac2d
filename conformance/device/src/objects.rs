//! What the fixtures do at once, and what they put off.

use farref_embassy::{
    Action, Arguments, Done, ErrorCode, ObjectKey, Ref, Reference, Reply, Value, ValueError, ValueWriter,
};
use heapless::Vec;

use crate::held::{Held, Own, REFERENCES, copy};
use crate::jobs::Job;
use crate::{
    CALLER, COUNTER, ECHO, ENTRY, Entry, Fixtures, KEEPER, Kind, MAKER, Name, RAISER, SINK, SLOW, SOURCE, State,
    no_room,
};

impl<'c> Fixtures<'c> {
    pub(crate) fn perform(&self, key: ObjectKey, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        match key {
            CALLER => self.caller(action, args, reply),
            COUNTER => match (action, args.values().len(), args.get(0)) {
                (Action::Call, 0, _) => self.made(Kind::Counter { sum: 0 }, reply),
                (Action::Call, 1, Some(Value::Int(sum))) => self.made(Kind::Counter { sum }, reply),
                (Action::Call, ..) => reply.bad_arguments("counter(start=0)"),
                _ => reply.unsupported(),
            },
            ECHO if matches!(action, Action::Call) => self.echo(args, reply),
            KEEPER if matches!(action, Action::Call) => self.made(Kind::Keeper, reply),
            MAKER if matches!(action, Action::Call) => self.made(Kind::Maker { made: 0, held: None }, reply),
            SLOW if matches!(action, Action::Call) => self.made(Kind::Slow { entered: 0 }, reply),
            RAISER => self.raiser(action, args, reply),
            SINK => match (action, args.get(0)) {
                (Action::Call, Some(Value::Str(text))) => reply.int(text.len() as i64),
                (Action::Call, Some(Value::Bytes(bytes))) => reply.int(bytes.len() as i64),
                (Action::Call, _) => reply.int(0),
                (Action::Method(_), _) => self.job_with(args, 1, reply, Job::Drain),
                _ => reply.unsupported(),
            },
            SOURCE => match (action, count(args, 0)) {
                (Action::Method(0), Some(length)) => self.job(reply, Job::Text(length)),
                (Action::Method(1), Some(length)) => self.job(reply, Job::Bytes(length)),
                (Action::Method(2), Some(length)) => self.made(Kind::Items { length }, reply),
                (Action::Method(_), None) => reply.bad_arguments("a count up to a million"),
                _ => reply.unsupported(),
            },
            key => {
                let kind = |kind: &mut Kind<'_>| match kind {
                    Kind::Counter { .. } => Self::counter,
                    Kind::Keeper => Self::keeper,
                    Kind::Maker { .. } => Self::maker,
                    Kind::Thing { .. } => Self::thing,
                    Kind::Slow { .. } => Self::slow,
                    Kind::Items { .. } | Kind::Iterator { .. } => Self::items,
                    Kind::Nest => Self::nest,
                };
                match self.with(key, kind) {
                    Some(perform) => perform(self, key, action, args, reply),
                    None => reply.unsupported(),
                }
            }
        }
    }

    /// Replies a new object.
    fn made(&self, kind: Kind<'c>, reply: Reply<'_>) -> Done {
        match self.make(kind) {
            Some(own) => self.reply_new(&[own], false, reply),
            None => no_room(reply),
        }
    }

    /// Replies new objects; if the other side does not take them, they are gone.
    fn reply_new(&self, owns: &[Own<'c>], is_tuple: bool, reply: Reply<'_>) -> Done {
        let references: Vec<Ref, REFERENCES> = owns.iter().map(|own| Ref::Local(own.key)).collect();
        let mut is_taken = false;
        let done = reply.with(&references, |writer| {
            is_taken = true;
            if is_tuple {
                writer.tuple(owns.len())?;
            }
            (0..owns.len()).try_for_each(|number| writer.reference(number))
        });
        owns.iter().for_each(|own| self.holds.set_exported(own.key, is_taken));
        done
    }

    /// Replies one that exists.
    fn reply_held(&self, own: &Own<'c>, reply: Reply<'_>) -> Done {
        self.holds.set_exported(own.key, true);
        reply.reference(Ref::Local(own.key))
    }

    /// Puts a call off.
    fn job(&self, reply: Reply<'_>, job: Job<'c>) -> Done {
        let Some(place) = self.jobs.iter().position(|job| job.try_borrow().is_ok_and(|job| job.is_none())) else {
            return no_room(reply);
        };
        let (later, done) = self.peer.later(reply);
        if let Some(place) = self.jobs.get(place) {
            *place.borrow_mut() = Some((later, job));
        }
        self.wake();
        done
    }

    /// Puts a call off that needs its arguments, which are at least so many.
    fn job_with(
        &self,
        args: &Arguments<'_>,
        least: usize,
        mut reply: Reply<'_>,
        job: impl FnOnce(Held<'c, { crate::ARGUMENTS }>) -> Job<'c>,
    ) -> Done {
        if args.values().positional().count() < least {
            return reply.bad_arguments("more arguments");
        }
        match Held::new(args.values(), args, (self.peer, self.holds), &mut reply) {
            Some(held) => self.job(reply, job(held)),
            None => no_room(reply),
        }
    }

    /// One positional argument is itself; otherwise the tuple of all, named ones as (name, value).
    fn echo(&self, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        let values = args.values();
        let is_one = values.len() == 1 && !matches!(values.first(), Some(Value::Named(_)));
        let settled = |handle| matches!(reply.resolve(handle), Some(Reference::Value(_)));
        if (0..).map_while(|index| args.handle(index)).any(settled) {
            // What promises have settled to is in the session, which the reply is written into.
            return self.job_with(args, 0, reply, move |held| Job::Echo(held, is_one));
        }
        let references: Vec<Ref, REFERENCES> = (0..)
            .map_while(|index| args.handle(index))
            .filter_map(|handle| match reply.resolve(handle)? {
                Reference::Local(key) => Some(Ref::Local(key)),
                Reference::Import(import) | Reference::Weak(import) => Some(Ref::Import(import)),
                _ => None,
            })
            .collect();
        reply.with(&references, |writer| write_echo(writer, values, is_one))
    }

    fn raiser(&self, action: Action, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
        match action {
            Action::Method(0) if args.str(0).is_some() => self.job_with(args, 1, reply, Job::Raise),
            Action::Method(1) => {
                let Some(code) = count(args, 0) else { return reply.bad_arguments("refuse(code, values...)") };
                let values = args.values().positional().skip(1);
                match Held::new(values, args, (self.peer, self.holds), &mut reply) {
                    Some(held) => self.job(reply, Job::Refuse(ErrorCode::from_number(code as u32), held)),
                    None => no_room(reply),
                }
            }
            Action::Method(_) => reply.bad_arguments("raise(name, args..., text=none, traceback=none)"),
            _ => reply.unsupported(),
        }
    }

    fn caller(&self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        match (action, count(args, 1)) {
            (Action::Method(0), _) => self.job_with(args, 1, reply, Job::Once),
            (Action::Method(1), Some(count)) => self.job_with(args, 2, reply, |held| Job::Times(held, count)),
            (Action::Method(2), Some(depth)) => self.job_with(args, 2, reply, |held| Job::Nest(held, depth)),
            (Action::Method(3), _) => self.job_with(args, 2, reply, Job::Both),
            (Action::Method(6), _) => self.job_with(args, 1, reply, Job::Abandon),
            (Action::Method(7), _) => self.job_with(args, 1, reply, Job::Catch),
            (Action::Method(8), Some(count)) => self.job_with(args, 2, reply, |held| Job::Offer(held, count)),
            (Action::Method(1 | 2 | 8), None) => reply.bad_arguments("a count up to a million"),
            _ => reply.unsupported(),
        }
    }

    fn nest(&self, _: ObjectKey, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        match (action, count(args, 1)) {
            (Action::Call, Some(depth)) => self.job_with(args, 2, reply, |held| Job::Nest(held, depth)),
            (Action::Call, None) => reply.bad_arguments("a function and a depth"),
            _ => reply.unsupported(),
        }
    }

    fn counter(&self, key: ObjectKey, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        let State { objects, added, .. } = &mut *self.state.borrow_mut();
        let object = self.holds.place(key).and_then(|place| objects.get_mut(place));
        let Some(Some(Kind::Counter { sum })) = object else { return reply.unsupported() };
        match action {
            Action::Method(0) => {
                let number = match (args.values().len(), args.get(0).or(args.named("number"))) {
                    (0, _) => 1,
                    (1, Some(value)) if let Some(number) = settled_int(value, args, &reply) => number,
                    _ => return reply.bad_arguments("add(number=1)"),
                };
                if added.push((key, number)).is_err() {
                    return no_room(reply);
                }
                *sum = sum.wrapping_add(number);
                reply.int(*sum)
            }
            Action::Method(_) => reply.value(|writer| {
                let ours = || added.iter().filter(|(of, _)| *of == key);
                writer.tuple(ours().count())?;
                ours().try_for_each(|&(_, number)| writer.int(number))
            }),
            Action::Get(1) => reply.int(*sum),
            Action::Get(2) => reply.str("counter"),
            Action::Get(3) => reply.int(1),
            Action::Set(_) => match args.int(0) {
                Some(new) => {
                    *sum = new;
                    reply.none()
                }
                None => reply.bad_arguments("an integer"),
            },
            Action::Delete(_) => {
                *sum = 0;
                reply.none()
            }
            Action::Text(true) => reply.str("<counter>"),
            Action::Text(false) => reply.value(|writer| writer.text(format_args!("{sum}"))),
            _ => reply.unsupported(),
        }
    }

    fn keeper(&self, key: ObjectKey, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        match (action, args.str(0)) {
            (Action::Method(0) | Action::SetItem, Some(name)) => self.put(key, name, args.get(1), false, args, reply),
            (Action::Method(1) | Action::GetItem, Some(name)) => self.give(key, name, reply),
            (Action::Method(2) | Action::DelItem, Some(name)) => match self.take(key, name) {
                Some(entry) => {
                    drop(entry);
                    reply.none()
                }
                None => reply.raise("KeyError", name),
            },
            (Action::Method(3), _) => {
                while let Some(entry) = self.take_if(|entry| entry.of == key) {
                    drop(entry);
                }
                reply.none()
            }
            (Action::Method(4), Some(name)) => {
                let state = self.state.borrow();
                let found = state.entries.iter().find(|entry| entry.of == key && entry.name == name);
                let Some(item) = found.map(|entry| entry.value.items.first().cloned()) else {
                    return reply.raise("KeyError", name);
                };
                drop(state);
                self.job_with(args, 1, reply, |held| Job::CallKept(item, held))
            }
            (Action::Length, _) => {
                reply.int(self.state.borrow().entries.iter().filter(|entry| entry.of == key).count() as i64)
            }
            (Action::Contains, name) => {
                let is = |entry: &Entry<'_>| entry.of == key && name.is_some_and(|name| entry.name == name);
                reply.bool(self.state.borrow().entries.iter().any(is))
            }
            (Action::Force, _) => {
                let state = self.state.borrow();
                let ours = || state.entries.iter().filter(|entry| entry.of == key);
                let mut references: Vec<Ref, REFERENCES> = Vec::new();
                for item in ours().flat_map(|entry| &entry.value.items) {
                    let reference = item.reference(self.peer).ok();
                    if reference.is_none_or(|reference| references.push(reference).is_err()) {
                        drop(state);
                        return no_room(reply);
                    }
                }
                reply.with(&references, |writer| {
                    writer.map(ours().count())?;
                    let mut first = 0;
                    ours().try_for_each(|entry| {
                        writer.str(&entry.name)?;
                        entry.value.write(writer, first)?;
                        first += entry.value.items.len();
                        Ok(())
                    })
                })
            }
            (Action::Method(_) | Action::GetItem | Action::SetItem | Action::DelItem, _) => {
                reply.bad_arguments("a name")
            }
            _ => reply.unsupported(),
        }
    }

    /// Keeps something under a name, in the place of what was there.
    fn put(
        &self,
        of: ObjectKey,
        name: &str,
        value: Option<Value<'_>>,
        is_failure: bool,
        args: &Arguments<'_>,
        mut reply: Reply<'_>,
    ) -> Done {
        let Some(value) = value else { return reply.bad_arguments("a name and a value") };
        let (Ok(name), Some(value)) =
            (Name::try_from(name), Held::<ENTRY>::new([value], args, (self.peer, self.holds), &mut reply))
        else {
            return no_room(reply);
        };
        let before = self.take(of, &name);
        let is_kept = self.state.borrow_mut().entries.push(Entry { of, name, is_failure, value }).is_ok();
        drop(before);
        self.wake();
        if is_kept { reply.none() } else { no_room(reply) }
    }

    fn give(&self, of: ObjectKey, name: &str, reply: Reply<'_>) -> Done {
        let state = self.state.borrow();
        let Some(entry) = state.entries.iter().find(|entry| entry.of == of && entry.name == name) else {
            return reply.raise("KeyError", name);
        };
        match entry.value.references(self.peer) {
            Ok(references) => reply.with(&references, |writer| entry.value.write(writer, 0)),
            Err(_) => reply.raise("ReferenceError", "it is no more"),
        }
    }

    fn take(&self, of: ObjectKey, name: &str) -> Option<Entry<'c>> {
        self.take_if(|entry| entry.of == of && entry.name == name)
    }

    fn take_if(&self, is: impl Fn(&Entry<'c>) -> bool) -> Option<Entry<'c>> {
        let entries = &mut self.state.borrow_mut().entries;
        let place = entries.iter().position(is)?;
        Some(entries.remove(place))
    }

    fn maker(&self, key: ObjectKey, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        match action {
            Action::Method(0) => match self.new_thing(key) {
                Some(own) => self.reply_new(&[own], false, reply),
                None => no_room(reply),
            },
            Action::Method(1) => {
                let Some(count) = count(args, 0) else { return reply.bad_arguments("make_many(n)") };
                let things: Vec<Own<'c>, REFERENCES> =
                    (0..count).take(REFERENCES).map_while(|_| self.new_thing(key)).collect();
                if things.len() as i64 == count { self.reply_new(&things, true, reply) } else { no_room(reply) }
            }
            Action::Method(2) => reply.int(self.alive(key)),
            Action::Method(3) => match self.new_thing(key) {
                Some(own) => {
                    let before = self.set_held(key, Some(own.clone()));
                    drop(before);
                    self.reply_new(&[own], false, reply)
                }
                None => no_room(reply),
            },
            Action::Method(4) => {
                let held = self.with(key, |kind| if let Kind::Maker { held, .. } = kind { held.clone() } else { None });
                match held.flatten() {
                    Some(own) => self.reply_held(&own, reply),
                    None => reply.none(),
                }
            }
            Action::Method(_) => {
                let before = self.set_held(key, None);
                drop(before);
                reply.none()
            }
            _ => reply.unsupported(),
        }
    }

    fn set_held(&self, key: ObjectKey, new: Option<Own<'c>>) -> Option<Own<'c>> {
        self.with(key, |kind| if let Kind::Maker { held, .. } = kind { core::mem::replace(held, new) } else { None })?
    }

    pub(crate) fn new_thing(&self, maker: ObjectKey) -> Option<Own<'c>> {
        let number = self.with(maker, |kind| match kind {
            Kind::Maker { made, .. } => {
                *made += 1;
                *made
            }
            _ => 0,
        });
        self.make(Kind::Thing { maker, number: number.unwrap_or(0) })
    }

    fn alive(&self, key: ObjectKey) -> i64 {
        let state = self.state.borrow();
        let is_one = |&(place, kind): &(usize, &Option<Kind<'_>>)| {
            matches!(kind, Some(Kind::Thing { maker, .. }) if *maker == key) && self.holds.is_alive(place)
        };
        state.objects.iter().enumerate().filter(is_one).count() as i64
    }

    /// The number of a thing.
    pub(crate) fn number(&self, key: ObjectKey) -> Option<i64> {
        self.with(key, |kind| if let Kind::Thing { number, .. } = kind { Some(*number) } else { None })?
    }

    fn thing(&self, key: ObjectKey, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        let Some(number) = self.number(key) else { return reply.unsupported() };
        match action {
            Action::Call | Action::Get(1) | Action::Hash => reply.int(number),
            // The call holds its object, and so does the job.
            Action::Method(_) => {
                let own = Own::new(key, self.holds);
                self.job_with(args, 1, reply, |held| Job::After(held, own))
            }
            Action::Equals => match args.reference(0).and_then(|handle| reply.resolve(handle)) {
                Some(Reference::Local(other)) => reply.bool(other == key),
                _ => reply.value(|writer| writer.not_implemented()),
            },
            Action::Text(_) => reply.value(|writer| writer.text(format_args!("<thing {number}>"))),
            _ => reply.unsupported(),
        }
    }

    fn slow(&self, key: ObjectKey, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        match (action, args.str(0)) {
            (Action::Method(0), Some(name)) => {
                let Ok(name) = Name::try_from(name) else { return no_room(reply) };
                self.with(key, |kind| {
                    if let Kind::Slow { entered } = kind {
                        *entered += 1
                    }
                });
                self.wake();
                self.job(reply, Job::Wait(Own::new(key, self.holds), name))
            }
            (Action::Method(1), Some(name)) => {
                self.put(key, name, Some(args.get(1).unwrap_or(Value::None)), false, args, reply)
            }
            (Action::Method(2), Some(name)) => match args.get(1) {
                Some(exception @ Value::Str(_)) => self.put(key, name, Some(exception), true, args, reply),
                _ => reply.bad_arguments("fail(name, exception)"),
            },
            (Action::Method(3), _) => match count(args, 0) {
                Some(count) => self.job(reply, Job::Entered(Own::new(key, self.holds), count)),
                None => reply.bad_arguments("entered(n)"),
            },
            (Action::Method(_), None) => reply.bad_arguments("a name"),
            _ => reply.unsupported(),
        }
    }

    fn items(&self, key: ObjectKey, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        let span = self.with(key, |kind| match kind {
            Kind::Items { length } => Some((None, *length)),
            Kind::Iterator { next, length } => Some((Some(*next), *length)),
            _ => None,
        });
        let numbers = |reply: Reply<'_>, from: i64, to: i64, is_list: bool| {
            reply.value(|writer| {
                let count = (to - from) as usize;
                if is_list {
                    writer.list(count)?
                } else {
                    writer.tuple(count)?
                }
                (from..to).try_for_each(|number| writer.int(number))
            })
        };
        match (action, span.flatten()) {
            (Action::Length, Some((None, length))) => reply.int(length),
            (Action::GetItem, Some((None, length))) => {
                let Some(index) = args.int(0) else { return reply.bad_arguments("an integer") };
                let place = if index < 0 { index.saturating_add(length) } else { index };
                match (0..length).contains(&place) {
                    true => reply.int(place),
                    false => reply.raise_with("IndexError", 1, |writer| writer.int(index)),
                }
            }
            (Action::Contains, Some((None, length))) => {
                reply.bool(args.int(0).is_some_and(|number| (0..length).contains(&number)))
            }
            (Action::Force, Some((None, length))) => numbers(reply, 0, length, true),
            (Action::Iterate, Some((None, length))) => self.made(Kind::Iterator { next: 0, length }, reply),
            (Action::Next(most), Some((Some(from), length))) => {
                let to = from.saturating_add(i64::try_from(most).unwrap_or(i64::MAX)).min(length);
                self.with(key, |kind| {
                    if let Kind::Iterator { next, .. } = kind {
                        *next = to
                    }
                });
                numbers(reply, from, to, false)
            }
            _ => reply.unsupported(),
        }
    }

    /// What a gate of a slow object says, if it has been opened or failed.
    pub(crate) fn gate(&self, slow: ObjectKey, name: &Name) -> Option<(bool, Held<'c, ENTRY>)> {
        let state = self.state.borrow();
        let entry = state.entries.iter().find(|entry| entry.of == slow && entry.name == *name)?;
        Some((entry.is_failure, entry.value.clone()))
    }

    /// How many calls of `wait` have begun.
    pub(crate) fn entered(&self, slow: ObjectKey) -> i64 {
        self.with(slow, |kind| if let Kind::Slow { entered } = kind { *entered } else { 0 }).unwrap_or(0)
    }
}

/// The arguments, as `echo` gives them back; their references are in the order in which they are written.
pub(crate) fn write_echo(
    writer: &mut ValueWriter<'_>,
    values: farref_embassy::Values<'_>,
    is_one: bool,
) -> Result<(), ValueError> {
    let number = &mut |index: u32| index as usize;
    if is_one {
        return values.into_iter().try_for_each(|value| copy(writer, value, number));
    }
    writer.tuple(values.len())?;
    values.into_iter().try_for_each(|value| match value {
        Value::Named(named) => {
            writer.tuple(2)?;
            writer.str(named.name())?;
            copy(writer, named.value(), number)
        }
        other => copy(writer, other, number),
    })
}

/// An integer, or what a promise has settled to if that is one.
fn settled_int(value: Value<'_>, args: &Arguments<'_>, reply: &Reply<'_>) -> Option<i64> {
    let value = match value {
        Value::Reference(index) => match reply.resolve(args.handle(index)?)? {
            Reference::Value(kept) => reply.kept(kept)?.1.first()?,
            _ => return None,
        },
        value => value,
    };
    if let Value::Int(number) = value { Some(number) } else { None }
}

/// The count at that place, at most a million.
fn count(args: &Arguments<'_>, index: usize) -> Option<i64> {
    args.int(index).filter(|count| (0..=1_000_000).contains(count))
}
