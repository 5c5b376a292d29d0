//! Terms of the ACPI machine language (ACPI 6.5, chapter 20), each as its bytes.

/// A term with its package length, which counts itself; nothing here comes near its bound of 1 MiB.
fn with_length(opcode: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = opcode.to_vec();
    // One byte has six bits of length; else the first has four, and the number of bytes that follow.
    let more = match body.len() {
        0..63 => 0,
        63..4094 => 1,
        _ => 2,
    };
    let length = body.len() + 1 + more;
    if more == 0 {
        out.push(length as u8);
    } else {
        out.push((more as u8) << 6 | (length & 0xf) as u8);
        out.extend((length >> 4).to_le_bytes().iter().take(more));
    }
    out.extend(body);
    out
}

fn named(opcode: &[u8], name: &[u8], terms: &[Vec<u8>]) -> Vec<u8> {
    with_length(opcode, &[name, &terms.concat()].concat())
}

/// Three letters and digits as a compressed EISA id.
pub fn eisa_id(id: &[u8; 7]) -> Vec<u8> {
    let letter = |n: usize| u32::from(id[n] - b'@') & 0x1f;
    let digit = |n: usize| char::from(id[n]).to_digit(16).unwrap_or(0);
    let value =
        letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | digit(3) << 12 | digit(4) << 8 | digit(5) << 4 | digit(6);
    let mut out = vec![0x0c];
    out.extend(value.to_be_bytes());
    out
}

/// A path from the root: `\A.B.C`.
pub fn path(names: &[&[u8; 4]]) -> Vec<u8> {
    let mut out = vec![b'\\'];
    match names.len() {
        1 => {}
        2 => out.push(0x2e),
        more => out.extend([0x2f, more as u8]),
    }
    names.iter().for_each(|name| out.extend(*name));
    out
}

pub fn string(text: &str) -> Vec<u8> {
    let mut out = vec![0x0d];
    out.extend(text.as_bytes());
    out.push(0);
    out
}

pub fn byte(value: u8) -> Vec<u8> {
    vec![0x0a, value]
}

pub fn word(value: u16) -> Vec<u8> {
    let mut out = vec![0x0b];
    out.extend(value.to_le_bytes());
    out
}

pub fn dword(value: u32) -> Vec<u8> {
    let mut out = vec![0x0c];
    out.extend(value.to_le_bytes());
    out
}

pub fn buffer(bytes: &[u8]) -> Vec<u8> {
    with_length(&[0x11], &[&byte(bytes.len() as u8), bytes].concat())
}

pub fn package(elements: &[Vec<u8>]) -> Vec<u8> {
    named(&[0x12], &[elements.len() as u8], elements)
}

pub fn name(name: &[u8; 4], value: &[u8]) -> Vec<u8> {
    [&[0x08], &name[..], value].concat()
}

pub fn device(name: &[u8; 4], terms: &[Vec<u8>]) -> Vec<u8> {
    named(&[0x5b, 0x82], name, terms)
}

pub fn scope(name: &[u8; 4], terms: &[Vec<u8>]) -> Vec<u8> {
    named(&[0x10], &path(&[name]), terms)
}

/// A method that is not entered a second time while it runs.
pub fn method(name: &[u8; 4], arguments: u8, terms: &[Vec<u8>]) -> Vec<u8> {
    named(&[0x14], &[&name[..], &[arguments | 1 << 3]].concat(), terms)
}

/// The argument of that number.
pub fn argument(number: u8) -> Vec<u8> {
    vec![0x68 + number]
}

/// What is called, or read, by its name in this scope.
pub fn call(target: &[u8], arguments: &[Vec<u8>]) -> Vec<u8> {
    [target, &arguments.concat()].concat()
}

/// Accesses to fields: each as wide as this. What is not written is zero.
pub const BYTE: u8 = 1 | WRITE_AS_ZEROES;
/// The same.
pub const DWORD: u8 = 3 | WRITE_AS_ZEROES;
const WRITE_AS_ZEROES: u8 = 2 << 5;

/// Ports.
pub fn region(name: &[u8; 4], port: u16, bytes: u8) -> Vec<u8> {
    const SYSTEM_IO: u8 = 1;
    [&[0x5b, 0x80], &name[..], &[SYSTEM_IO], &word(port), &byte(bytes)].concat()
}

/// Registers of ports, from the first on: names with their bits; without a name they are passed over. At most 63 bits each.
pub fn field(region: &[u8; 4], access: u8, units: &[(Option<&[u8; 4]>, u8)]) -> Vec<u8> {
    let unit = |(name, bits): &(Option<&[u8; 4]>, u8)| match name {
        Some(name) => [&name[..], &[*bits]].concat(),
        None => vec![0, *bits],
    };
    let units: Vec<Vec<u8>> = units.iter().map(unit).collect();
    named(&[0x5b, 0x81], &[&region[..], &[access]].concat(), &units)
}

/// Ports, and the 32-bit registers that lie there from the first on.
pub fn registers(name: &[u8; 4], port: u16, fields: &[&[u8; 4]]) -> Vec<u8> {
    let units: Vec<_> = fields.iter().map(|field| (Some(*field), 32)).collect();
    [region(name, port, fields.len() as u8 * 4), field(name, DWORD, &units)].concat()
}

/// Target is a name, or a local variable.
pub fn store(value: &[u8], target: &[u8]) -> Vec<u8> {
    [&[0x70], value, target].concat()
}

/// The local variable of that number.
pub fn local(number: u8) -> Vec<u8> {
    vec![0x60 + number]
}

/// What a method gives to whom called it.
pub fn give(value: &[u8]) -> Vec<u8> {
    [&[0xa4], value].concat()
}

pub fn equal(a: &[u8], b: &[u8]) -> Vec<u8> {
    [&[0x93], a, b].concat()
}

pub fn repeat(condition: &[u8], terms: &[Vec<u8>]) -> Vec<u8> {
    named(&[0xa2], condition, terms)
}

pub fn mutex(name: &[u8; 4]) -> Vec<u8> {
    [&[0x5b, 0x01], &name[..], &[0]].concat()
}

/// Waits for it as long as it takes.
pub fn acquire(name: &[u8; 4]) -> Vec<u8> {
    [&[0x5b, 0x23], &name[..], &[0xff, 0xff]].concat()
}

pub fn release(name: &[u8; 4]) -> Vec<u8> {
    [&[0x5b, 0x27], &name[..]].concat()
}

pub fn and(a: &[u8], b: &[u8]) -> Vec<u8> {
    [&[0x7b], a, b, &[0]].concat()
}

pub fn when(condition: &[u8], terms: &[Vec<u8>]) -> Vec<u8> {
    named(&[0xa0], condition, terms)
}

/// Tells whoever drives a device that something happened to it.
pub fn notify(device: &[u8], what: &[u8]) -> Vec<u8> {
    [&[0x86], device, what].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_lengths_are_encoded_as_the_specification_has_them() {
        assert_eq!(eisa_id(b"PNP0501"), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
        assert_eq!(buffer(&[7; 3]), [0x11, 6, 0x0a, 3, 7, 7, 7]);
        let long = buffer(&[0; 100]);
        assert_eq!((long.len(), &long[..3]), (1 + 2 + 2 + 100, &[0x11, 0x40 | (104 & 0xf), 104 >> 4][..]));
        let longer = scope(b"_SB_", &[vec![0; 5000]]);
        let length = 3 + 5 + 5000;
        assert_eq!(longer.len(), 1 + length);
        assert_eq!(longer[1..4], [0x80 | (length & 0xf) as u8, (length >> 4) as u8, (length >> 12) as u8]);
        // Each number of bytes as late as it is enough.
        assert_eq!([scope(b"_SB_", &[vec![0; 57]]).len(), scope(b"_SB_", &[vec![0; 58]]).len()], [64, 66]);
        assert_eq!(path(&[b"_SB_", b"PCI0", b"PCNT"]), *b"\\\x2f\x03_SB_PCI0PCNT");
    }
}
