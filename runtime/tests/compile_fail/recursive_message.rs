//! A message that contains itself.

#[ringcall::message]
pub struct Tree {
    pub name: String,
    pub children: Vec<Tree>,
}

#[ringcall::message]
pub enum List {
    End,
    Item { value: u32, next: Option<Box<Self>> },
}

fn main() {}
