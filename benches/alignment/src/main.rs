//! What aligned archives save, and what copying a misaligned one costs.
//!
//! Prints a line a measurement: its name and the time of one step in nanoseconds, the least of
//! several rounds, as whatever else the machine does only adds to it. `./run` compares both
//! formats.

use std::{hint::black_box, time::Instant};

use rkyv::{
    Archive, Portable, Serialize,
    api::low::LowValidator,
    bytecheck::CheckBytes,
    rancor::{Failure, Strategy},
    ser::{Serializer, allocator::Arena, allocator::ArenaHandle},
    util::AlignedVec,
};

type Encoder<'a> = Strategy<Serializer<AlignedVec, ArenaHandle<'a>, ()>, Failure>;

/// A number and bytes.
#[derive(Archive, Serialize)]
struct Blob {
    id: u64,
    bytes: Vec<u8>,
}

/// Numbers, as a sensor or a model sends them.
#[derive(Archive, Serialize)]
struct Samples {
    id: u64,
    values: Vec<u64>,
}

/// Texts, an option and a list of structs.
#[derive(Archive, Serialize)]
struct Order {
    id: u64,
    customer: String,
    address: String,
    note: Option<String>,
    lines: Vec<Line>,
}

#[derive(Archive, Serialize)]
struct Line {
    article: String,
    count: u32,
    price: u64,
}

fn main() {
    for (name, len) in [("64B", 48), ("4KiB", 4080)] {
        let blob = Blob { id: 42, bytes: vec![7; len] };
        both(&format!("blob_{name}"), &blob, |blob| {
            black_box(blob.bytes.last());
            blob.id.to_native()
        });
    }
    let samples = Samples { id: 42, values: (0..510).collect() };
    both("samples_4KiB", &samples, |samples| {
        let values = samples.values.iter().map(|value| value.to_native());
        values.fold(samples.id.to_native(), u64::wrapping_add)
    });
    both("order", &order(), |order| {
        black_box((order.customer.as_str(), order.address.as_str(), order.note.as_deref()));
        let total = order.lines.iter().map(|line| {
            black_box(line.article.as_str());
            u64::from(line.count.to_native()).wrapping_mul(line.price.to_native())
        });
        total.fold(order.id.to_native(), u64::wrapping_add)
    });
    for (name, len) in [("64B", 64), ("288B", 288), ("4KiB", 4 << 10), ("16KiB", 16 << 10)] {
        copy(name, len);
    }
}

/// Measures validation with reading, and encoding.
fn both<T>(name: &str, message: &T, read: fn(&T::Archived) -> u64)
where
    T: Archive<Archived: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>>
        + for<'a> Serialize<Encoder<'a>>,
{
    let mut arena = Arena::new();
    let mut encoded = encode(message, AlignedVec::new(), &mut arena);
    let body = encoded.clone();
    println!("{name}_len {}", body.len());
    report(&format!("{name}_read"), || {
        match rkyv::api::low::access::<T::Archived, Failure>(black_box(&body)) {
            Ok(archived) => read(archived),
            Err(_) => unreachable!("the body is an archive"),
        }
    });
    report(&format!("{name}_encode"), || {
        let mut reused = std::mem::take(&mut encoded);
        reused.clear();
        encoded = encode(black_box(message), reused, &mut arena);
        black_box(encoded.as_ptr());
        encoded.len() as u64
    });
}

fn encode<T>(message: &T, into: AlignedVec, arena: &mut Arena) -> AlignedVec
where
    T: for<'a> Serialize<Encoder<'a>>,
{
    let mut serializer = Serializer::new(into, arena.acquire(), ());
    match rkyv::api::serialize_using::<_, Failure>(message, &mut serializer) {
        Ok(_) => serializer.into_writer(),
        Err(_) => unreachable!("memory can be had"),
    }
}

/// Measures the copy of a misaligned body into an aligned buffer that is kept for it.
fn copy(name: &str, len: usize) {
    let received = vec![7; len + 64];
    let mut kept = AlignedVec::<16>::with_capacity(len);
    let start = 8 + received.as_ptr().align_offset(16);
    report(&format!("copy_{name}"), || {
        kept.clear();
        kept.extend_from_slice(&black_box(&received)[start..start + len]);
        black_box(kept.as_ptr());
        kept.len() as u64
    });
}

/// The least time of a step over many rounds of about a millisecond.
fn report(name: &str, mut step: impl FnMut() -> u64) {
    let mut time = |steps: u32| {
        let start = Instant::now();
        for _ in 0..steps {
            black_box(step());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(steps)
    };
    time(10_000);
    let steps = (1e6 / time(10_000)).clamp(100.0, 1e6) as u32;
    let least = (0..200).map(|_| time(steps)).fold(f64::INFINITY, f64::min);
    println!("{name} {least:.2}");
}

fn order() -> Order {
    let line = |article: &str, count, price| Line { article: article.to_owned(), count, price };
    Order {
        id: 1_234_567_890,
        customer: "Grace Brewster Hopper".to_owned(),
        address: "3801 Nebraska Avenue NW, Washington".to_owned(),
        note: Some("leave it with the neighbour on the left".to_owned()),
        lines: vec![
            line("a bolt of brass, 12 mm", 100, 250),
            line("nut", 100, 55),
            line("washer, stainless steel", 300, 12),
        ],
    }
}
