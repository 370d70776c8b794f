//! Types that cannot travel, each refused where it stands.

use std::{cell::Cell, collections::HashMap, num::NonZeroU32, rc::Rc, sync::Arc};

#[ringcall::message]
pub struct Shared {
    pub name: String,
    pub text: Rc<str>,
    pub parts: Vec<Option<Arc<str>>>,
}

#[ringcall::message]
pub struct Counted {
    pub len: usize,
    pub offset: isize,
    pub id: NonZeroU32,
}

#[ringcall::message]
pub enum Changing {
    Map(HashMap<String, u64>),
    Cell { value: Cell<u32> },
}

#[ringcall::message]
pub struct Pointing<'a> {
    pub raw: *const u8,
    pub function: fn(u8) -> u8,
    pub exclusive: &'a mut [u8],
    pub object: Box<dyn Send>,
}

#[ringcall::message]
pub struct Nested<'a> {
    pub pairs: Vec<(u32, &'a str)>,
    pub names: &'a [&'a str],
}

#[ringcall::message]
pub struct Unnamed {
    pub text: &str,
}

#[ringcall::message]
pub struct Mixed<'a, 'b> {
    pub first: Option<&'static str>,
    pub second: &'a str,
    pub third: &'b str,
}

fn main() {}
