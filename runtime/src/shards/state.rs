//! The service value of a shard, found by the type that another shard asks for.

use std::{
    any::{Any, type_name},
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{mail::Errand, service::Service, shard::Shard, shards::AskError};

/// What a closure from another shard is run on.
#[derive(Default)]
pub(crate) struct State {
    /// An `Rc<dyn Holds<S>>`, for the one `S` that can be asked for.
    held: RefCell<Option<Box<dyn Any>>>,
    /// The name of that `S`.
    name: Cell<&'static str>,
    stage: Cell<Stage>,
    /// What came before the value was made. Bounded by what each shard may ask of another.
    early: RefCell<Vec<Errand>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// The shard serves nothing that others could ask for.
    #[default]
    None,
    /// The value is being made.
    Coming,
    There,
    Gone,
}

/// A service that has a state of this type.
pub(crate) trait Holds<S> {
    fn get(&self) -> &S;
}

impl<T: Service> Holds<T::State> for T {
    fn get(&self) -> &T::State {
        self.state()
    }
}

impl State {
    /// The shard is a server's, and its service value is about to be made.
    pub(crate) fn is_coming(&self) {
        self.stage.set(Stage::Coming);
    }

    /// The value is there: what was asked before is run.
    pub(crate) fn set<T: Service>(&self, service: &Rc<T>, shard: &Rc<Shard>) {
        let held: Rc<dyn Holds<T::State>> = Rc::<T>::clone(service);
        *self.held.borrow_mut() = Some(Box::new(held));
        self.name.set(type_name::<T::State>());
        self.stage.set(Stage::There);
        let early = self.early.take();
        early.into_iter().for_each(|errand| errand(shard));
    }

    /// The value with the state that is asked for.
    pub(crate) fn find<S: 'static>(&self) -> Result<Rc<dyn Holds<S>>, AskError> {
        let held = self.held.borrow();
        let Some(held) = held.as_deref() else { return Err(AskError::Stopped) };
        held.downcast_ref::<Rc<dyn Holds<S>>>()
            .cloned()
            .ok_or(AskError::WrongState { asked: type_name::<S>(), has: self.name.get() })
    }

    /// Whether the shard is one of a server's.
    pub(crate) fn is_served(&self) -> bool {
        self.stage.get() != Stage::None
    }

    /// Whether the value is being made, so that what is asked is to be [kept](Self::keep).
    #[inline]
    pub(crate) fn is_early(&self) -> bool {
        matches!(self.stage.get(), Stage::None | Stage::Coming)
    }

    /// Keeps an errand until the value is there.
    #[cold]
    pub(crate) fn keep(&self, errand: Errand) {
        self.early.borrow_mut().push(errand);
    }

    /// Lets go of the value, and of what waits for it.
    pub(crate) fn close(&self) {
        self.stage.set(Stage::Gone);
        // Dropped when nothing in here is borrowed: they are users'.
        let (held, early) = (self.held.take(), self.early.take());
        drop((held, early));
    }
}
