//! A handler keeps its request beyond the call, and so does a task that it starts.

use std::cell::RefCell;

use ringcall::prelude::*;

#[ringcall::message]
pub struct Line {
    pub text: String,
}

#[ringcall::service]
pub trait Log {
    async fn keep(&self, cx: &Context, request: Request<'_, Line>) -> Result<Line, Status>;
    async fn spawn(&self, cx: &Context, request: Request<'_, Line>) -> Result<Line, Status>;
}

struct Keeper {
    last: RefCell<Option<Request<'static, Line>>>,
}

impl Log for Keeper {
    async fn keep(&self, _: &Context, request: Request<'_, Line>) -> Result<Line, Status> {
        *self.last.borrow_mut() = Some(request);
        Ok(Line { text: String::new() })
    }

    async fn spawn(&self, _: &Context, request: Request<'_, Line>) -> Result<Line, Status> {
        spawn_local(async move { request.text.len() });
        Ok(Line { text: String::new() })
    }
}

fn spawn_local(task: impl Future + 'static) {
    drop(task);
}

fn main() {}
