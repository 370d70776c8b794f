//! Messages: what was sent is read where it lies, and bytes that are no archive are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{BodyError, Message, access};
use rkyv::{
    Archive, Deserialize, Serialize,
    de::Pool,
    deserialize,
    rancor::{Failure, Strategy},
    with::InlineAsBox,
};
use support::{Blob, Body, Gaps, Line, Order, Payment, Random, aligned, archive};

/// Reads all of a message, so that a part that was not validated shows.
fn read<T>(body: &[u8]) -> Result<T, BodyError>
where
    T: Message,
    T::Archived: Deserialize<T, Strategy<Pool, Failure>>,
{
    let archived = access::<T>(body)?;
    let start = body.as_ptr().addr();
    let at = std::ptr::from_ref(archived).addr();
    assert!(at >= start && at + size_of::<T::Archived>() <= start + body.len());
    Ok(deserialize::<T, Failure>(archived).unwrap())
}

#[test]
fn a_message_of_every_size_is_read_where_it_lies() {
    for len in [0, 1, 15, 16, 17, 40, 256, 4 << 10, 16 << 10, 60 << 10, 1 << 20, 8 << 20] {
        let blob = Blob::new(len as u64, len);
        let body = archive(&blob);
        let archived = access::<Blob>(&body).unwrap();
        assert_eq!(archived.id, len as u64);
        assert_eq!(archived.bytes.as_slice(), blob.bytes);
        if len > 0 {
            assert!(body.as_ptr_range().contains(&archived.bytes.as_ptr()));
        }
        assert_eq!(read::<Blob>(&body), Ok(blob));
    }
}

#[test]
fn strings_options_enums_and_lists_arrive_as_they_were_sent() {
    let mut order = Order::example();
    for payment in [
        Payment::Cash,
        Payment::Card { number: u64::MAX, holder: String::new() },
        Payment::Transfer("DE00 1234 5678".to_owned(), 7),
    ] {
        order.payment = payment;
        order.note = order.note.is_none().then(|| "a note".repeat(order.lines.len()));
        order.lines.push(Line { article: "ä".repeat(99), count: 0, price: i64::MIN });
        assert_eq!(read::<Order>(&archive(&order)), Ok(order.clone()));
    }
    let gaps = Gaps { small: 1, large: u128::MAX, maybe: None, list: vec![(1, 2, Some(3)); 9] };
    assert_eq!(read::<Gaps>(&archive(&gaps)), Ok(gaps));
}

#[test]
fn random_messages_arrive_as_they_were_sent() {
    let mut random = Random::new(11);
    for _ in 0..500 {
        let mut text = |len_max| -> String {
            let len = random.below(len_max);
            (0..len).map(|_| char::from_u32(0x20 + random.below(0x2000) as u32).unwrap()).collect()
        };
        let (customer, note, holder) = (text(40), text(20), text(12));
        let lines =
            (0..4).map(|at| Line { article: text(30), count: at, price: -i64::from(at) }).collect();
        let order = Order {
            id: random.next(),
            customer,
            note: (random.below(2) == 0).then_some(note),
            payment: Payment::Card { number: random.next(), holder },
            lines,
        };
        assert_eq!(read::<Order>(&archive(&order)), Ok(order));
    }
}

#[test]
fn a_message_may_borrow_what_it_sends() {
    #[derive(Archive, Serialize)]
    struct Page<'a> {
        #[rkyv(with = InlineAsBox)]
        title: &'a str,
        #[rkyv(with = InlineAsBox)]
        bytes: &'a [u8],
    }
    impl ringcall_codec::Field for Page<'_> {
        const LAYOUT: u64 = 1;
    }
    impl Message for Page<'_> {}

    let bytes = Random::new(12).bytes(5000);
    let body = archive(&Page { title: "borrowed", bytes: &bytes });
    let page = access::<Page<'_>>(&body).unwrap();
    assert_eq!((&page.title[..], &page.bytes[..]), ("borrowed", &bytes[..]));
}

#[test]
fn a_message_without_contents_is_an_empty_body() {
    #[derive(Archive, Serialize)]
    struct Ping;
    impl ringcall_codec::Field for Ping {
        const LAYOUT: u64 = 1;
    }
    impl Message for Ping {}
    let body = archive(&Ping);
    assert!(body.is_empty());
    assert!(access::<Ping>(&body).is_ok());
}

#[test]
fn an_empty_body_is_read_wherever_it_points() {
    #[derive(Archive, Serialize)]
    struct Ping;
    impl ringcall_codec::Field for Ping {
        const LAYOUT: u64 = 1;
    }
    impl Message for Ping {}
    /// No bytes either, at an address that is not any.
    #[derive(Archive, Serialize)]
    struct Nothing([u128; 0]);
    impl ringcall_codec::Field for Nothing {
        const LAYOUT: u64 = 2;
    }
    impl Message for Nothing {}

    let memory = aligned(&[0; 32]);
    let none = Vec::new();
    let empty = (0..=32).map(|at| &memory[at..at]).chain([&[][..], &none[..]]);
    for body in empty {
        assert!(access::<Ping>(body).is_ok(), "at {:p}", body.as_ptr());
        assert!(access::<Nothing>(body).is_ok(), "at {:p}", body.as_ptr());
        let refused = access::<Blob>(body).map(drop);
        assert_eq!(refused, Err(BodyError::Invalid { body_len: 0 }));
    }
    // With bytes, alignment is asked for whatever the message.
    assert_eq!(access::<Ping>(&memory[1..]).map(drop), Err(BodyError::Misaligned));
}

#[test]
fn a_body_that_is_not_aligned_is_named_so() {
    let body = archive(&Order::example());
    for offset in 0..=16 {
        let mut shifted = aligned(&vec![0; offset]);
        shifted.extend_from_slice(&body);
        let outcome = access::<Order>(&shifted[offset..]).map(|order| order.id.to_native());
        let expected = match offset % 16 {
            0 => Ok(Order::example().id),
            _ => Err(BodyError::Misaligned),
        };
        assert_eq!(outcome, expected, "shifted by {offset}");
    }
}

#[test]
fn a_truncated_archive_is_refused_or_reads_within_its_bounds() {
    fn truncate<T>(message: &T)
    where
        T: Message,
        T::Archived: Deserialize<T, Strategy<Pool, Failure>>,
    {
        let body = archive(message);
        for len in 0..body.len() {
            // A shorter buffer, so that a read beyond it is beyond its memory.
            let _ = read::<T>(&aligned(&body[..len]));
        }
        for len in 0..size_of::<T::Archived>().min(body.len()) {
            let refused = access::<T>(&body[..len]).map(drop);
            assert_eq!(refused, Err(BodyError::Invalid { body_len: len }));
        }
    }
    truncate(&Blob::new(u64::MAX, 300));
    truncate(&Order::example());
    truncate(&Gaps { small: 1, large: 2, maybe: Some(3), list: vec![(1, 2, None); 9] });
}

#[test]
fn random_bytes_are_refused_or_read_within_their_bounds() {
    let mut random = Random::new(13);
    for _ in 0..20_000 {
        let len = random.below(400);
        let body = aligned(&random.bytes(len));
        let _ = read::<Blob>(&body);
        let _ = read::<Order>(&body);
        let _ = read::<Gaps>(&body);
    }
}

#[test]
fn flipped_bytes_are_refused_or_read_within_their_bounds() {
    let mut random = Random::new(14);
    let body = archive(&Order::example());
    let mut refused = 0;
    for at in 0..body.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, random.next() as u8] {
            let mut flipped: Body = body.clone();
            flipped[at] = value;
            refused += usize::from(read::<Order>(&flipped).is_err());
        }
    }
    assert!(refused > 100, "only {refused} were refused");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let order = Order { customer: "a customer of long standing".to_owned(), ..Order::example() };
    let mut body = archive(&order);
    let at = body.windows(10).position(|window| window == b"a customer").unwrap();
    body[at] = 0xff;
    let body_len = body.len();
    assert_eq!(read::<Order>(&body), Err(BodyError::Invalid { body_len }));
}

#[test]
fn a_length_beyond_the_body_is_refused() {
    let mut body = archive(&Blob::new(1, 48));
    let body_len = body.len();
    let len_at = body_len - 4;
    assert_eq!(body[len_at..], 48_u32.to_le_bytes());
    for len in [49, 64, 65, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        body[len_at..].copy_from_slice(&len.to_le_bytes());
        assert_eq!(read::<Blob>(&body), Err(BodyError::Invalid { body_len }));
    }
}
