//! Group 2: what one thread allocates, another frees.

use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Job, threads::share};
use crate::meter::{Meter, Spent};

/// Objects by which the queue swings, over all pairs of threads.
const SWING: u64 = 400_000;

type Cargo = Box<[u64; 8]>;

/// One thread of a pair fills a queue while the other empties the one before: between none and two
/// fillings are live. An operation is one object of 64 bytes, allocated here and freed there.
pub(super) fn producer_consumer(job: &Job) -> Spent {
    let pairs = (job.threads / 2).max(1);
    let swing = share(SWING, pairs).min(share(job.amount, pairs));
    let swings = share(job.amount, pairs) / swing;
    let meter = Meter::process();
    thread::scope(|scope| {
        for pair in 0..pairs as u64 {
            let (full, fulls) = bounded(1);
            let (empty, empties) = bounded(2);
            for _ in 0..2 {
                let queue: Vec<Cargo> = Vec::with_capacity(swing as usize);
                empty.send(queue).expect("it has room for two");
            }
            scope.spawn(move || produce(pair, swing, swings, &empties, &full));
            scope.spawn(move || consume(pair, swing, swings, &fulls, &empty));
        }
    });
    meter.stop(pairs as u64 * swing * swings)
}

fn produce(
    pair: u64,
    swing: u64,
    swings: u64,
    empties: &Receiver<Vec<Cargo>>,
    full: &Sender<Vec<Cargo>>,
) {
    for s in 0..swings {
        let mut queue = empties.recv().expect("the consumer returns them");
        for i in 0..swing {
            let stamp = stamp(pair, s, i);
            queue.push(Box::new([stamp, 0, 0, 0, 0, 0, 0, !stamp]));
        }
        full.send(queue).expect("the consumer waits for it");
    }
}

fn consume(
    pair: u64,
    swing: u64,
    swings: u64,
    fulls: &Receiver<Vec<Cargo>>,
    empty: &Sender<Vec<Cargo>>,
) {
    for s in 0..swings {
        let mut queue = fulls.recv().expect("the producer sends them all");
        assert_eq!(queue.len() as u64, swing);
        for (i, cargo) in queue.drain(..).enumerate() {
            let stamp = stamp(pair, s, i as u64);
            assert!(cargo[0] == stamp && cargo[7] == !stamp, "cargo {i} of swing {s} is {cargo:?}");
        }
        // Nobody waits for the last ones.
        let _ = empty.send(queue);
    }
}

fn stamp(pair: u64, swing: u64, i: u64) -> u64 {
    pair << 56 | swing << 32 | i
}

struct Message {
    number: u64,
    body: Box<[u8]>,
}

/// Bytes of the body of message `number`: 16 to 271.
fn body_length(number: u64) -> usize {
    16 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

/// Boxed messages with a body of their own through one bounded channel, half of the threads
/// sending, half receiving. An operation is one message: two objects.
pub(super) fn channel(job: &Job) -> Spent {
    let senders = (job.threads / 2).max(1);
    let each = share(job.amount, senders);
    let meter = Meter::process();
    let received: u64 = thread::scope(|scope| {
        let (send, receive) = bounded::<Box<Message>>(1024);
        for sender in 0..senders as u64 {
            let send = send.clone();
            scope.spawn(move || {
                for i in 0..each {
                    let number = sender * each + i;
                    let body = vec![number as u8; body_length(number)].into();
                    send.send(Box::new(Message { number, body })).expect("somebody receives");
                }
            });
        }
        drop(send);
        let receivers: Vec<_> = (0..senders)
            .map(|_| {
                let receive = receive.clone();
                scope.spawn(move || receive.iter().map(|message| check(&message)).sum::<u64>())
            })
            .collect();
        receivers.into_iter().map(|r| r.join().expect("a message is not as it was sent")).sum()
    });
    let sent = senders as u64 * each;
    assert_eq!(received, sent * (sent - 1) / 2, "messages are missing");
    meter.stop(sent)
}

/// The number of a message that is as it was sent.
fn check(message: &Message) -> u64 {
    let Message { number, body } = message;
    let right = body.len() == body_length(*number)
        && body.first() == Some(&(*number as u8))
        && body.last() == Some(&(*number as u8));
    assert!(right, "message {number}: {body:?}");
    *number
}
