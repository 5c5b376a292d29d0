//! Registers as the debugger numbers them, and how it is told of them.
use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs};
use std::fmt::Write as _;
use std::sync::OnceLock;

/// A processor's registers, all of them or as many as KVM gives.
#[derive(Debug, Default, Clone, Copy)]
pub struct Registers {
    pub general: kvm_regs,
    pub special: kvm_sregs,
    pub floating: kvm_fpu,
}

const GENERAL: [&str; 16] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const SEGMENTS: [&str; 6] = ["cs", "ss", "ds", "es", "fs", "gs"];
const FLOATING: [&str; 8] = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];
const CONTROL: [&str; 5] = ["cr0", "cr2", "cr3", "cr4", "efer"];

/// One register: its name, its bits, and its type in the description.
struct Row {
    name: String,
    bits: usize,
    kind: &'static str,
    group: &'static str,
}

fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let mut rows = Vec::new();
        let mut add = |name: &str, bits, kind, group| rows.push(Row { name: name.to_owned(), bits, kind, group });
        const CORE: &str = "org.gnu.gdb.i386.core";
        const SSE: &str = "org.gnu.gdb.i386.sse";
        for name in GENERAL {
            let kind = if matches!(name, "rbp" | "rsp") { "data_ptr" } else { "int64" };
            add(name, 64, kind, CORE);
        }
        add("rip", 64, "code_ptr", CORE);
        add("eflags", 32, "int32", CORE);
        SEGMENTS.iter().for_each(|name| add(name, 32, "int32", CORE));
        (0..8).for_each(|n| add(&format!("st{n}"), 80, "i387_ext", CORE));
        FLOATING.iter().for_each(|name| add(name, 32, "int", CORE));
        (0..16).for_each(|n| add(&format!("xmm{n}"), 128, "uint128", SSE));
        add("mxcsr", 32, "int", SSE);
        ["fs_base", "gs_base"].iter().for_each(|name| add(name, 64, "int", "org.gnu.gdb.i386.segments"));
        CONTROL.iter().for_each(|name| add(name, 64, "int64", "org.pilvi.vmm.control"));
        rows
    })
}

/// How many there are.
pub fn count() -> usize {
    rows().len()
}

/// The description that the debugger asks for.
pub fn description() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = String::from(
            "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
             <architecture>i386:x86-64</architecture>",
        );
        let mut group = "";
        for row in rows() {
            if row.group != group {
                if !group.is_empty() {
                    text.push_str("</feature>");
                }
                group = row.group;
                let _ = write!(text, "<feature name=\"{group}\">");
            }
            let Row { name, bits, kind, .. } = row;
            let _ = write!(text, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"/>");
        }
        text.push_str("</feature></target>");
        text
    })
}

impl Registers {
    fn general(&mut self) -> [&mut u64; 16] {
        let r = &mut self.general;
        [
            &mut r.rax, &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp, &mut r.rsp, &mut r.r8,
            &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15,
        ]
    }

    /// Of the x87 state, as it was before there were short tags.
    fn tags(&self) -> u16 {
        (0..8).map(|n| if self.floating.ftwx >> n & 1 == 1 { 0 } else { 3 << (2 * n) }).sum()
    }

    /// Its bytes, little end first; none if there is no such register.
    pub fn get(&self, number: usize) -> Option<Vec<u8>> {
        let (mut copy, special, floating) = (*self, &self.special, &self.floating);
        let word = |value: u64| Some(value.to_le_bytes().to_vec());
        let half = |value: u32| Some(value.to_le_bytes().to_vec());
        match number {
            0..16 => word(*copy.general()[number]),
            16 => word(self.general.rip),
            17 => half(self.general.rflags as u32),
            18..24 => {
                let all = [special.cs, special.ss, special.ds, special.es, special.fs, special.gs];
                half(all[number - 18].selector.into())
            }
            24..32 => Some(floating.fpr[number - 24][..10].to_vec()),
            32..40 => half(match number - 32 {
                0 => floating.fcw.into(),
                1 => floating.fsw.into(),
                2 => self.tags().into(),
                4 => floating.last_ip as u32,
                6 => floating.last_dp as u32,
                7 => floating.last_opcode.into(),
                _ => 0,
            }),
            40..56 => Some(floating.xmm[number - 40].to_vec()),
            56 => half(floating.mxcsr),
            57 => word(special.fs.base),
            58 => word(special.gs.base),
            59 => word(special.cr0),
            60 => word(special.cr2),
            61 => word(special.cr3),
            62 => word(special.cr4),
            63 => word(special.efer),
            _ => None,
        }
    }

    /// Takes a value, little end first. Selectors and control registers stay as they are: a part of them would be worse than none.
    pub fn set(&mut self, number: usize, value: &[u8]) -> Option<()> {
        (value.len() * 8 == rows().get(number)?.bits).then_some(())?;
        let mut wide = [0; 16];
        wide[..value.len()].copy_from_slice(value);
        let word = u64::from_le_bytes(*wide.first_chunk()?);
        match number {
            0..16 => *self.general()[number] = word,
            16 => self.general.rip = word,
            17 => self.general.rflags = self.general.rflags & !0xffff_ffff | word,
            24..32 => self.floating.fpr[number - 24][..10].copy_from_slice(value),
            32 => self.floating.fcw = word as u16,
            33 => self.floating.fsw = word as u16,
            40..56 => self.floating.xmm[number - 40] = wide,
            56 => self.floating.mxcsr = word as u32,
            57 => self.special.fs.base = word,
            58 => self.special.gs.base = word,
            _ => {}
        }
        Some(())
    }

    /// All of them, one after the other.
    pub fn all(&self) -> Vec<u8> {
        (0..count()).filter_map(|number| self.get(number)).flatten().collect()
    }

    /// Takes as many as there are bytes for.
    pub fn set_all(&mut self, mut bytes: &[u8]) -> Option<()> {
        for (number, row) in rows().iter().enumerate() {
            if bytes.is_empty() {
                break;
            }
            let (value, rest) = bytes.split_at_checked(row.bits / 8)?;
            self.set(number, value)?;
            bytes = rest;
        }
        bytes.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_is_as_long_as_it_is_said_to_be() {
        let registers = Registers::default();
        for (number, row) in rows().iter().enumerate() {
            assert_eq!(registers.get(number).unwrap().len() * 8, row.bits, "{}", row.name);
        }
        assert_eq!((registers.get(count()), count()), (None, 64));
        assert_eq!(rows()[16].name, "rip");
        assert!(description().matches("<reg ").count() == count() && description().ends_with("</target>"));
    }

    #[test]
    fn what_is_set_is_read_again() {
        let mut registers = Registers::default();
        for number in (0..18).chain(24..32).chain(40..56).chain(57..59) {
            let value: Vec<u8> = (0..rows()[number].bits / 8).map(|n| n as u8 ^ number as u8).collect();
            registers.set(number, &value).unwrap();
            assert_eq!(registers.get(number), Some(value), "{}", rows()[number].name);
        }
        let mut other = Registers::default();
        other.set_all(&registers.all()).unwrap();
        assert_eq!(other.all(), registers.all());
        assert!(
            other.set(0, &[1]).is_none() && other.set(count(), &[0; 8]).is_none() && other.set_all(&[0; 7]).is_none()
        );
    }
}
