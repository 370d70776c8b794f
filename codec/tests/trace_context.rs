//! Trace context: what is one, and what is none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use ringcall_codec::{Key, Metadata, TraceContext, TraceContextError};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_context_is_read_and_written_as_it_came() {
    let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
    assert_eq!(context.to_string(), PARENT);
    assert_eq!(context.trace_id()[..2], [0x4b, 0xf9]);
    assert_eq!(context.span_id()[6..], [0x02, 0xb7]);
    assert!(context.is_sampled());
    let other = context.in_span([0xab; 8]).unwrap();
    assert_eq!(other.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-abababababababab-01");
    let made = TraceContext::new(context.trace_id(), context.span_id(), true).unwrap();
    assert_eq!(made, context);
}

#[test]
fn flags_that_are_not_known_are_dropped() {
    for (flags, kept) in [("00", "00"), ("01", "01"), ("02", "00"), ("ff", "01")] {
        let parent = format!("{}{flags}", &PARENT[..53]);
        let context = TraceContext::parse(parent.as_bytes()).unwrap();
        assert_eq!(context.to_string()[53..], *kept);
    }
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    for parent in [format!("01{}", &PARENT[2..]), format!("cc{}-more of it", &PARENT[2..])] {
        assert_eq!(TraceContext::parse(parent.as_bytes()).unwrap().to_string(), PARENT);
    }
    let parent = format!("01{}x", &PARENT[2..]);
    assert_eq!(TraceContext::parse(parent.as_bytes()), Err(TraceContextError::Malformed));
}

#[test]
fn what_is_not_quite_a_context_is_none() {
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    for (parent, error) in [
        (String::new(), TraceContextError::Malformed),
        (PARENT[..54].to_owned(), TraceContextError::Malformed),
        (format!("{PARENT}-"), TraceContextError::Malformed),
        (format!("{PARENT}\n"), TraceContextError::Malformed),
        (PARENT.to_uppercase(), TraceContextError::Malformed),
        (format!("ff{}", &PARENT[2..]), TraceContextError::Malformed),
        (format!("0x{}", &PARENT[2..]), TraceContextError::Malformed),
        (format!("00_{trace}-{span}-01"), TraceContextError::Malformed),
        (format!("00-{trace}_{span}-01"), TraceContextError::Malformed),
        (format!("00-{trace}-{span}-0g"), TraceContextError::Malformed),
        (format!("00-{}-{span}-01", "0".repeat(32)), TraceContextError::ZeroId),
        (format!("00-{trace}-{}-01", "0".repeat(16)), TraceContextError::ZeroId),
    ] {
        assert_eq!(TraceContext::parse(parent.as_bytes()), Err(error), "{parent:?}");
    }
    assert!(TraceContext::new([0; 16], [1; 8], true).is_err());
    assert!(TraceContext::parse(PARENT.as_bytes()).unwrap().in_span([0; 8]).is_err());
}

#[test]
fn metadata_carries_it_with_its_state() {
    let mut context = TraceContext::parse(PARENT.as_bytes()).unwrap();
    context.set_state("rojo=00f067aa0ba902b7, congo@eu=t61rcWkgMzE");
    let mut metadata = Metadata::new();
    context.insert_into(&mut metadata).unwrap();
    assert_eq!(metadata.as_ref().get_str(Key::TRACEPARENT), Some(PARENT));
    let read = TraceContext::of(&metadata.as_ref()).unwrap();
    assert_eq!(read, context);
    assert_eq!(read.state(), "rojo=00f067aa0ba902b7, congo@eu=t61rcWkgMzE");
    assert_eq!(TraceContext::of(&Metadata::new().as_ref()), None);
}

#[test]
fn a_state_that_is_none_is_left_out_and_the_trace_goes_on() {
    let many = vec!["a=b"; 33].join(",");
    let long = format!("a={}", "b".repeat(600));
    for state in ["", "novalue", "a=b,=c", "A=b", "a=b=c", "a=\u{e4}", &*many, &*long, "a=b\u{7f}"]
    {
        let mut metadata = Metadata::new();
        metadata.insert(Key::TRACEPARENT, PARENT).unwrap();
        metadata.insert(Key::TRACESTATE, state).unwrap();
        let context = TraceContext::of(&metadata.as_ref()).unwrap();
        assert_eq!((context.state(), &*context.to_string()), ("", PARENT), "{state:?}");
    }
}

#[test]
fn metadata_that_is_full_says_so_and_a_state_finds_no_room_in_silence() {
    let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
    let mut full = Metadata::new();
    full.insert_named("filler", vec![0; 8150]).unwrap();
    assert!(context.insert_into(&mut full).is_err());
    let mut nearly = Metadata::new();
    nearly.insert_named("filler", vec![0; 8080]).unwrap();
    let mut context = context;
    context.set_state("vendor=0123456789012345678901234567890123456789");
    context.insert_into(&mut nearly).unwrap();
    assert_eq!(TraceContext::of(&nearly.as_ref()).unwrap().state(), "");
}
