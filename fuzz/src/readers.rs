//! The readers of the command's files: traces and maps, raw and behind heads and sums that are right, which
//! no fuzzer would guess.

use crate::{map_file, trace};
use map_file::Map;
use trace::{Trace, format};

/// Whatever the bytes are: a file or an error that says what is wrong, never a panic, and the same twice.
pub fn readers(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    match how % 4 {
        0 => read_trace(data),
        1 => read_trace(&trace_of(data)),
        2 => read_map(data),
        _ => read_map(&map_of(data)),
    }
}

fn read_trace(bytes: &[u8]) {
    let said = |bytes| Trace::read(bytes).map(drop).map_err(|broken| broken.to_string());
    let (first, second) = (said(bytes), said(bytes));
    assert_eq!(first, second);
    assert!(first != Err(String::new()), "an error says what is wrong");
}

fn read_map(bytes: &[u8]) {
    let ((map, broken), again) = (Map::read(bytes), Map::read(bytes));
    assert!(map == again.0 && broken == again.1, "the same bytes, read twice");
    assert!(map.is_some() || broken.is_some());
    assert!(broken.is_none_or(|broken| !broken.to_string().is_empty()));
}

/// A trace whose head and chunks are right and whose contents are the data: a chunk for each part behind a
/// byte 0xff, of the kind that the byte behind that says.
fn trace_of(data: &[u8]) -> Vec<u8> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for (number, part) in data.split(|&byte| byte == 0xff).enumerate() {
        let Some((&kind, body)) = part.split_first() else { continue };
        let used = format::CHUNK_HEAD + body.len();
        let units = used.div_ceil(format::UNIT) as u32;
        let mut chunk = format::CHUNK.to_le_bytes().to_vec();
        for number in [u32::from(kind % 5), u32::from(kind >> 6), number as u32, units, 0] {
            chunk.extend(number.to_le_bytes());
        }
        chunk.extend(u64::from(kind).to_le_bytes());
        chunk.extend(format::checksum(format::UNCHECKED, &chunk).to_le_bytes());
        chunk.extend(format::seal(used as u32).to_le_bytes());
        chunk.resize(format::CHUNK_HEAD, 0);
        chunk.extend(body);
        // A chunk of maps ends with its own sum.
        if kind & 0x20 != 0 && body.len() + 8 < format::UNIT {
            let sum = format::checksum(format::UNCHECKED, body).to_le_bytes();
            chunk.extend(sum);
        }
        chunk.resize(units as usize * format::UNIT, 0);
        chunks.push(chunk);
    }
    let mut file = format::MAGIC.to_vec();
    for number in [format::VERSION, format::UNIT as u32, 77, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(1_000_000_000u64.to_le_bytes());
    file.extend(5u64.to_le_bytes());
    let mut command = b"prog\x01-x".to_vec();
    command.resize(format::COMMAND_MOST, 0);
    let sum = format::checksum(format::checksum(format::UNCHECKED, &file), &command);
    file.extend(sum.to_le_bytes());
    let units = 1 + chunks.iter().map(Vec::len).sum::<usize>() / format::UNIT;
    file.extend(format::seal(units as u32).to_le_bytes());
    file.extend(format::seal(0).to_le_bytes());
    file.extend(command);
    file.resize(format::UNIT, 0);
    chunks.iter().for_each(|chunk| file.extend(chunk));
    file
}

const HEAD: &str = r#"{"spandrel":"map","version":1,"pid":7,"command":"prog","page":4096,"granule":32768,"hugepage":2097152,"window":1073741824,"classes":[[64,1,512],[1024,1,32]]}"#;
const BEGIN: &str = r#"{"snapshot":1,"time_ms":5,"missed":false,"sum":{"mapped":4194304,"live":66560,"live_large":65536,"cached":64,"in_transfer":0,"free_in_spans":64448,"free_granules":1900544,"returned":2097152,"metadata":65536,"stranded":0},"floors":{}}"#;

/// A map whose head, first line and sum are right and whose other lines are the data.
fn map_of(data: &[u8]) -> Vec<u8> {
    let mut text = format!("{BEGIN}\n").into_bytes();
    let mut lines = 1;
    for line in data.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        text.extend(line);
        text.push(b'\n');
        lines += 1;
    }
    let sum = text.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let end = format!("{{\"end\":1,\"lines\":{},\"check\":\"{sum:016x}\"}}\n", lines + 1);
    [HEAD.as_bytes(), b"\n", &text, end.as_bytes()].concat()
}
