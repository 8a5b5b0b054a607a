//! A request/response service on tokio, over the loopback, clients in the same process.

use std::{io, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

use super::MOBY_DICK;
use crate::{
    meter::{Meter, Spent},
    workloads::jobs::Job,
};

/// Connections at once.
const CLIENTS: u64 = 16;

#[derive(Deserialize, Serialize)]
struct Request {
    number: u64,
    text: String,
}

#[derive(Deserialize, Serialize)]
struct Response {
    number: u64,
    longest: String,
    words: Vec<String>,
}

/// Sixteen clients send paragraphs of the book as JSON to a server that answers with their words,
/// and check the answers. The runtime has so many threads. An operation is a request.
pub(in super::super) fn service(job: &Job) -> Spent {
    let paragraphs: Arc<Vec<&str>> =
        Arc::new(MOBY_DICK.split("\\n\\n").map(|p| p.trim()).filter(|p| p.len() > 100).collect());
    let each = (job.amount / CLIENTS).max(1);
    let meter = Meter::process();
    let runtime = Builder::new_multi_thread()
        .worker_threads(job.threads)
        .enable_io()
        .build()
        .expect("the system starts so few threads");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a loopback");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("clients connect");
                tokio::spawn(serve(stream));
            }
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let paragraphs = Arc::clone(&paragraphs);
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(address).await?;
                    for n in 0..each {
                        let number = client * each + n;
                        let text = paragraphs[number as usize % paragraphs.len()];
                        ask(&mut stream, number, text).await?;
                    }
                    io::Result::Ok(())
                })
            })
            .collect();
        for client in clients {
            client.await.expect("an answer is wrong").expect("the connection holds");
        }
    });
    drop(runtime);
    meter.stop(each * CLIENTS)
}

async fn ask(stream: &mut TcpStream, number: u64, text: &str) -> io::Result<()> {
    send(stream, &Request { number, text: text.to_owned() }).await?;
    let bytes = receive(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let response: Response = serde_json::from_slice(&bytes)?;
    assert_eq!(response.number, number);
    assert!(response.words.iter().map(String::as_str).eq(text.split_whitespace()));
    assert!(text.contains(&response.longest));
    Ok(())
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(bytes) = receive(&mut stream).await? {
        let request: Request = serde_json::from_slice(&bytes)?;
        let words: Vec<String> = request.text.split_whitespace().map(str::to_owned).collect();
        let longest = words.iter().max_by_key(|w| w.len()).cloned().unwrap_or_default();
        send(&mut stream, &Response { number: request.number, longest, words }).await?;
    }
    Ok(())
}

/// A message is its length in four bytes, and JSON.
async fn send(stream: &mut TcpStream, message: &(impl Serialize + Sync)) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() as u32 - 4;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&bytes).await
}

/// The next message, or none when the other side has hung up.
async fn receive(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32_le().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        length => length?,
    };
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}
