//! `top`: the live page of a server in a terminal.
//!
//! It asks for `/live.json` each second (`fetch`), reads it (`live`), and shows it (`view`).

mod fetch;
mod live;
mod view;

use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, Instant},
};

use crate::{args::TopArgs, error::Failure, interrupt::Interrupt, report::print};

pub(crate) use fetch::TopError;

/// Clears the screen and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Longest time between two looks at whether there was a Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// Shows a server until Ctrl-C, or once.
pub(crate) fn top(args: &TopArgs) -> Result<(), Failure> {
    if args.once || args.json {
        let data = fetch::fetch(&args.address)?;
        return print(&if args.json { data + "\n" } else { shown(args, &data)? });
    }
    let interrupt = Interrupt::watch()?;
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    // What cannot be reached at first is an error; what is lost later may come back.
    let mut data = Ok(fetch::fetch(&args.address)?);
    while !interrupt.is_set() {
        let text = match &data {
            Ok(data) => shown(args, data)?,
            Err(error) => format!("{error}\n"),
        };
        print(&format!("{clear}{text}"))?;
        let next = Instant::now() + args.interval;
        while !interrupt.is_set() && Instant::now() < next {
            thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
        }
        data = fetch::fetch(&args.address);
    }
    Ok(())
}

fn shown(args: &TopArgs, data: &str) -> Result<String, Failure> {
    let live = serde_json::from_str(data);
    let live = live.map_err(|error| TopError::not_understood(&args.address, &error))?;
    Ok(view::text(&live, args.slow))
}
