//! One question and its answer over a connection of its own: signed, bounded, checked.
use crate::{Key, Server, Trouble, key::FILE_MAX};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::TSigVerifier,
};
use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

impl Server {
    pub(crate) async fn exchange(&self, mut question: Message) -> Result<Message, Trouble> {
        let key = self.key().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let impossible = |e: hickory_proto::ProtoError| Trouble::Impossible(e.to_string());
        let verifier = question.finalize(&key.0, now).map_err(impossible)?;
        let bytes = question.to_vec().map_err(impossible)?;
        let silent = |why: String| Trouble::Silent(self.address, why);
        let answer = match timeout(self.patience, self.carry(&bytes)).await {
            Ok(answer) => answer.map_err(|e| silent(e.to_string()))?,
            Err(_) => return Err(silent("it takes too long".into())),
        };
        check(&question, &answer, verifier)
    }

    async fn key(&self) -> Result<Key, Trouble> {
        let unreadable = |why: String| Trouble::Key(format!("{}: {why}", self.key_file.display()));
        let file = tokio::fs::File::open(&self.key_file).await.map_err(|e| unreadable(e.to_string()))?;
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text).await.map_err(|e| unreadable(e.to_string()))?;
        Key::parse(&text).map_err(unreadable)
    }

    async fn carry(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut framed = Vec::with_capacity(question.len() + 2);
        framed.extend(length.to_be_bytes());
        framed.extend(question);
        stream.write_all(&framed).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

/// Is it the answer to this question, by who has the key? What he says of the signature comes unsigned.
fn check(question: &Message, bytes: &[u8], verifier: Option<TSigVerifier>) -> Result<Message, Trouble> {
    let broken = || Trouble::Key("the answer cannot be read".into());
    let answer = Message::from_vec(bytes).map_err(|_| broken())?;
    if answer.id != question.id || answer.op_code != question.op_code {
        return Err(Trouble::Key("the answer is to another question".into()));
    }
    if let Some(error) = answer.signature().and_then(|record| record.data.error.as_ref()) {
        return Err(Trouble::Key(format!("it says {error:?}")));
    }
    let signed = match verifier {
        Some(mut verifier) if answer.signature().is_some() => verifier.verify(bytes).is_ok(),
        _ => false,
    };
    match (signed, answer.response_code) {
        (true, _) => Ok(answer),
        (false, code @ (ResponseCode::NotAuth | ResponseCode::Refused | ResponseCode::FormErr)) => {
            Err(Trouble::Key(format!("it says {code} without a signature")))
        }
        (false, _) => Err(Trouble::Key("the answer is not signed with it".into())),
    }
}
