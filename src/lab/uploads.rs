//! Uploads: much at once, and all of it must come back. What does not fit a link on the way shows here.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::netns::Inside;

/// Time enough for retransmissions; one that hangs on an MTU hangs for ever.
const WITHIN: Duration = Duration::from_secs(8);

/// So many connections send so many bytes each; how many get them back whole.
///
/// # Errors
/// The namespace's thread has ended.
pub(crate) async fn whole(inside: &Inside, to: SocketAddr, count: usize, length: usize) -> anyhow::Result<usize> {
    let all = inside.spawn(async move {
        let mut flying: JoinSet<bool> = JoinSet::new();
        for n in 0..count {
            flying.spawn(async move { matches!(timeout(WITHIN, one(to, n, length)).await, Ok(Ok(true))) });
        }
        flying.join_all().await.into_iter().filter(|whole| *whole).count()
    });
    Ok(all.await?)
}

async fn one(to: SocketAddr, n: usize, length: usize) -> std::io::Result<bool> {
    let mut stream = BufReader::new(TcpStream::connect(to).await?);
    stream.read_line(&mut String::new()).await?;
    let said: Vec<u8> = (0..length).map(|i| (i.wrapping_mul(31).wrapping_add(n) >> 3) as u8).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        write.write_all(&said).await?;
        write.flush().await
    };
    let receive = async {
        let mut heard = vec![0; length];
        read.read_exact(&mut heard).await.map(|_| heard)
    };
    let ((), heard) = tokio::try_join!(send, receive)?;
    Ok(heard == said)
}
