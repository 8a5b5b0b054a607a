//! Group 4: mixed sizes, random lifetimes, a quarter freed by another thread.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{
    Job,
    block::{Block, log_uniform},
    threads::{on_threads, share},
};
use crate::meter::{Meter, Spent};

/// Blocks live, over all threads: about 8 KiB each.
const LIVE: u64 = 4096;
/// Blocks that go to another thread together.
const PARCEL: usize = 32;

/// Each thread replaces random blocks of its own, of 16 B to 64 KiB (every doubling equally
/// likely). Of four that it replaces it frees three, and sends one to its neighbour, who frees it.
/// An operation is one replacement.
pub(super) fn replace(job: &Job) -> Spent {
    let each = share(job.amount, job.threads);
    let live = share(LIVE.min(job.amount), job.threads) as usize;
    let meter = Meter::process();
    let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..job.threads).map(|_| bounded(64)).unzip();
    // Everybody sends to the next, and who is alone, to himself.
    senders.rotate_left(1);
    let seats: Vec<_> =
        senders.into_iter().zip(receivers).map(|s| std::sync::Mutex::new(Some(s))).collect();
    on_threads(job.threads, &|number| {
        let seat = seats[number].lock().ok().and_then(|mut seat| seat.take());
        let (send, receive) = seat.expect("each thread has a seat of its own");
        work(number as u64, each, live, send, &receive);
    });
    meter.stop(each * job.threads as u64)
}

fn work(
    seed: u64,
    each: u64,
    live: usize,
    send: Sender<Vec<Block>>,
    receive: &Receiver<Vec<Block>>,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let new = |random: &mut fastrand::Rng| Block::new(log_uniform(random, 4, 16), random.u32(..));
    let mut blocks: Vec<Block> = (0..live).map(|_| new(&mut random)).collect();
    let mut parcel = Vec::with_capacity(PARCEL);
    for i in 0..each {
        let victim = random.usize(..live);
        let block = new(&mut random);
        let old = std::mem::replace(&mut blocks[victim], block);
        if i % 4 == 0 {
            parcel.push(old);
            if parcel.len() == PARCEL {
                ship(std::mem::replace(&mut parcel, Vec::with_capacity(PARCEL)), &send, receive);
            }
        }
    }
    drop(send);
    // The neighbour may still be at work; it hangs up when it is done.
    receive.iter().for_each(drop);
}

/// Sends, and frees what came in meanwhile: as everybody does so while waiting, nobody waits for
/// ever.
fn ship(mut parcel: Vec<Block>, send: &Sender<Vec<Block>>, receive: &Receiver<Vec<Block>>) {
    loop {
        receive.try_iter().for_each(drop);
        match send.try_send(parcel) {
            Ok(()) => return,
            Err(TrySendError::Full(back)) => parcel = back,
            Err(TrySendError::Disconnected(_)) => unreachable!("the neighbour listens to the end"),
        }
        std::thread::yield_now();
    }
}
