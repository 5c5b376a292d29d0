//! Helpers of source NAT: which questions of guests are answered from another port. The noting is in `bpf/nat.h`, on the host that
//! holds the router's gateway.
use crate::picture::Picture;
use crate::router::router_name;
use crate::table::{Bytes, Table, put};
use crate::wanted::Answers;

const TFTP: u32 = 1;
const UDP: u8 = 17;

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for helper in &wanted.helpers {
        let (kind, protocol) = match helper.answers {
            Answers::Tftp => (TFTP, UDP),
        };
        let key =
            Bytes::new().u64(router_name(&helper.router)).raw(&helper.port.to_be_bytes()).u8(protocol).raw(&[0; 5]);
        if !put(&mut picture.tables, Table::Helpers, key, Bytes::new().u32(kind)) {
            picture.problem(None, format!("router {}: port {} has a helper already", helper.router, helper.port));
        }
    }
}
