//! Byte vectors: each kind laid out by hand after its figure in RFC 7143, clause 11, and compared with the struct.

use super::raw::*;
use super::*;

/// 48 bytes with these pieces at these places.
fn figure(pieces: &[(usize, &[u8])]) -> [u8; BHS_LEN] {
    let mut bytes = [0; BHS_LEN];
    for (at, piece) in pieces {
        bytes[*at..at + piece.len()].copy_from_slice(piece);
    }
    bytes
}

/// The numbers that responses share: bytes 24, 28 and 32.
const SNS: (usize, &[u8]) = (24, &[0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0x1f]);
const ITT: (usize, &[u8]) = (16, &[1, 2, 3, 4]);
const LUN1: (usize, &[u8]) = (8, &[0, 1, 0, 0, 0, 0, 0, 0]);

fn lun() -> [u8; 8] {
    scsi::LunAddress::new(1).expect("in range").to_bytes()
}

/// The one where bytes and struct are one.
fn check(bhs: Bhs, expected: &[u8; BHS_LEN]) {
    assert_eq!(bhs.bytes(), expected, "\n{:02x?}\n{expected:02x?}", bhs.bytes());
    assert_eq!(Bhs::from_bytes(*expected), bhs);
}

macro_rules! pdu {
    ($kind:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let mut pdu = $kind::default();
        $(pdu.$field = $value.into();)*
        pdu.bhs()
    }};
}

#[test]
fn scsi_command_is_laid_out_as_in_11_3() {
    let mut cdb = [0; 16];
    cdb[..4].copy_from_slice(&[0x88, 1, 2, 3]);
    let flags = ScsiCommand::FINAL | ScsiCommand::READ | ScsiCommand::SIMPLE;
    let bhs = pdu!(ScsiCommand {
        flags: flags,
        data_len: [0, 1, 0],
        lun: lun(),
        itt: 0x0102_0304,
        expected_len: 0x1000,
        cmd_sn: 9,
        exp_stat_sn: 10,
        cdb: cdb
    });
    let numbers = [0, 0, 0x10, 0, 0, 0, 0, 9, 0, 0, 0, 10];
    check(bhs, &figure(&[(0, &[0x01, 0xc1]), (5, &[0, 1, 0]), LUN1, ITT, (20, &numbers), (32, &[0x88, 1, 2, 3])]));
    assert_eq!(ScsiCommand::WRITE, 0x20);
}

#[test]
fn scsi_response_is_laid_out_as_in_11_4() {
    let bhs = pdu!(ScsiResponse {
        flags: 0x80 | ScsiResponse::UNDERFLOW,
        status: 2_u8,
        data_len: [0, 0, 20],
        itt: 0x0102_0304,
        snack_tag: 5,
        stat_sn: 7,
        exp_cmd_sn: 8,
        max_cmd_sn: 0x1f,
        exp_data_sn: 3,
        bidi_residual: 1,
        residual: 512
    });
    let tail = [0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 2, 0];
    check(bhs, &figure(&[(0, &[0x21, 0x82, 0, 2]), (7, &[20]), ITT, (20, &[0, 0, 0, 5]), SNS, (36, &tail)]));
}

#[test]
fn task_management_is_laid_out_as_in_11_5_and_11_6() {
    let bhs = pdu!(TaskRequest {
        flags: 0x81_u8,
        lun: lun(),
        itt: 0x0102_0304,
        ref_task: 0x0a0b_0c0d,
        cmd_sn: 9,
        exp_stat_sn: 10,
        ref_cmd_sn: 4,
        exp_data_sn: 2
    });
    let numbers = [10, 11, 12, 13, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 4, 0, 0, 0, 2];
    check(bhs, &figure(&[(0, &[0x42, 0x81]), LUN1, ITT, (20, &numbers)]));
    let bhs = pdu!(TaskResponse { response: 1, itt: 0x0102_0304, stat_sn: 7, exp_cmd_sn: 8, max_cmd_sn: 0x1f });
    check(bhs, &figure(&[(0, &[0x22, 0x80, 1]), ITT, SNS]));
}

#[test]
fn data_out_and_data_in_are_laid_out_as_in_11_7() {
    let bhs = pdu!(DataOut {
        flags: 0x80_u8,
        data_len: [1, 0, 0],
        lun: lun(),
        itt: 0x0102_0304,
        ttt: 0x0a0b_0c0d,
        exp_stat_sn: 10,
        data_sn: 2,
        buffer_offset: 0x8000
    });
    check(
        bhs,
        &figure(&[
            (0, &[0x05, 0x80]),
            (5, &[1, 0, 0]),
            LUN1,
            ITT,
            (20, &[10, 11, 12, 13]),
            (28, &[0, 0, 0, 10]),
            (36, &[0, 0, 0, 2, 0, 0, 0x80, 0]),
        ]),
    );
    let bhs = pdu!(DataIn {
        flags: 0x83_u8,
        status: 0_u8,
        data_len: [0, 2, 0],
        itt: 0x0102_0304,
        ttt: u32::MAX,
        stat_sn: 7,
        exp_cmd_sn: 8,
        max_cmd_sn: 0x1f,
        data_sn: 2,
        buffer_offset: 0x8000,
        residual: 512
    });
    let tail = [0, 0, 0, 2, 0, 0, 0x80, 0, 0, 0, 2, 0];
    check(bhs, &figure(&[(0, &[0x25, 0x83]), (6, &[2]), ITT, (20, &[0xff; 4]), SNS, (36, &tail)]));
    assert_eq!((DataIn::FINAL, DataIn::ACKNOWLEDGE, DataIn::STATUS), (0x80, 0x40, 1));
}

#[test]
fn r2t_is_laid_out_as_in_11_8() {
    let bhs = pdu!(R2t {
        lun: lun(),
        itt: 0x0102_0304,
        ttt: 0x0a0b_0c0d,
        stat_sn: 7,
        exp_cmd_sn: 8,
        max_cmd_sn: 0x1f,
        r2t_sn: 1,
        buffer_offset: 0x4_0000,
        desired_len: 0x10_0000
    });
    let tail = [0, 0, 0, 1, 0, 4, 0, 0, 0, 0x10, 0, 0];
    check(bhs, &figure(&[(0, &[0x31, 0x80]), LUN1, ITT, (20, &[10, 11, 12, 13]), SNS, (36, &tail)]));
}

#[test]
fn asynchronous_message_is_laid_out_as_in_11_9() {
    let bhs = pdu!(Async {
        lun: lun(),
        itt: u32::MAX,
        stat_sn: 7,
        exp_cmd_sn: 8,
        max_cmd_sn: 0x1f,
        event: 2,
        vendor_code: 3,
        parameter1: 4,
        parameter2: 5,
        parameter3: 6
    });
    let tail = [2, 3, 0, 4, 0, 5, 0, 6];
    check(bhs, &figure(&[(0, &[0x32, 0x80]), LUN1, (16, &[0xff; 4]), SNS, (36, &tail)]));
}

#[test]
fn text_is_laid_out_as_in_11_10_and_11_11() {
    let bhs = pdu!(TextRequest {
        flags: 0x80_u8,
        data_len: [0, 0, 16],
        itt: 0x0102_0304,
        ttt: u32::MAX,
        cmd_sn: 9,
        exp_stat_sn: 10
    });
    check(
        bhs,
        &figure(&[(0, &[0x04, 0x80]), (7, &[16]), ITT, (20, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9, 0, 0, 0, 10])]),
    );
    let bhs = pdu!(TextResponse {
        flags: 0x40_u8,
        data_len: [0, 0, 16],
        itt: 0x0102_0304,
        ttt: 0x0a0b_0c0d,
        stat_sn: 7,
        exp_cmd_sn: 8,
        max_cmd_sn: 0x1f
    });
    check(bhs, &figure(&[(0, &[0x24, 0x40]), (7, &[16]), ITT, (20, &[10, 11, 12, 13]), SNS]));
}

#[test]
fn login_is_laid_out_as_in_11_12_and_11_13() {
    let isid = [0x80, 1, 2, 3, 4, 5];
    let bhs = pdu!(LoginRequest {
        flags: 0x87_u8,
        data_len: [0, 1, 0],
        isid: isid,
        tsih: 0x0607,
        itt: 0x0102_0304,
        cid: 1,
        cmd_sn: 9,
        exp_stat_sn: 10
    });
    let names = [0x80, 1, 2, 3, 4, 5, 6, 7];
    let numbers = [0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 10];
    check(bhs, &figure(&[(0, &[0x43, 0x87]), (6, &[1]), (8, &names), ITT, (20, &numbers)]));
    let bhs = pdu!(LoginResponse {
        flags: 0x87_u8,
        data_len: [0, 1, 0],
        isid: isid,
        tsih: 0x0607,
        itt: 0x0102_0304,
        stat_sn: 7,
        exp_cmd_sn: 8,
        max_cmd_sn: 0x1f,
        status_class: 2,
        status_detail: 1
    });
    check(bhs, &figure(&[(0, &[0x23, 0x87]), (6, &[1]), (8, &names), ITT, SNS, (36, &[2, 1])]));
}

#[test]
fn logout_is_laid_out_as_in_11_14_and_11_15() {
    let bhs = pdu!(LogoutRequest { flags: 0x81_u8, itt: 0x0102_0304, cid: 1, cmd_sn: 9, exp_stat_sn: 10 });
    check(bhs, &figure(&[(0, &[0x46, 0x81]), ITT, (20, &[0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 10])]));
    let bhs = pdu!(LogoutResponse {
        response: 1,
        itt: 0x0102_0304,
        stat_sn: 7,
        exp_cmd_sn: 8,
        max_cmd_sn: 0x1f,
        time2wait: 2,
        time2retain: 20
    });
    check(bhs, &figure(&[(0, &[0x26, 0x80, 1]), ITT, SNS, (40, &[0, 2, 0, 20])]));
}

#[test]
fn snack_and_reject_are_laid_out_as_in_11_16_and_11_17() {
    let bhs = pdu!(Snack {
        flags: 0x80_u8,
        lun: lun(),
        itt: 0x0102_0304,
        ttt: 0x0a0b_0c0d,
        exp_stat_sn: 10,
        begin: 3,
        run: 4
    });
    check(
        bhs,
        &figure(&[
            (0, &[0x10, 0x80]),
            LUN1,
            ITT,
            (20, &[10, 11, 12, 13, 0, 0, 0, 0, 0, 0, 0, 10]),
            (40, &[0, 0, 0, 3, 0, 0, 0, 4]),
        ]),
    );
    let bhs = pdu!(Reject {
        reason: 4,
        data_len: [0, 0, 48],
        itt: u32::MAX,
        stat_sn: 7,
        exp_cmd_sn: 8,
        max_cmd_sn: 0x1f,
        data_sn: 3
    });
    check(bhs, &figure(&[(0, &[0x3f, 0x80, 4]), (7, &[48]), (16, &[0xff; 4]), SNS, (36, &[0, 0, 0, 3])]));
}

#[test]
fn nops_are_laid_out_as_in_11_18_and_11_19() {
    let bhs =
        pdu!(NopOut { data_len: [0, 0, 4], lun: lun(), itt: u32::MAX, ttt: 0x0a0b_0c0d, cmd_sn: 9, exp_stat_sn: 10 });
    let numbers = [10, 11, 12, 13, 0, 0, 0, 9, 0, 0, 0, 10];
    check(bhs, &figure(&[(0, &[0x40, 0x80]), (7, &[4]), LUN1, (16, &[0xff; 4]), (20, &numbers)]));
    let bhs = pdu!(NopIn { lun: lun(), itt: 0x0102_0304, ttt: u32::MAX, stat_sn: 7, exp_cmd_sn: 8, max_cmd_sn: 0x1f });
    check(bhs, &figure(&[(0, &[0x20, 0x80]), LUN1, ITT, (20, &[0xff; 4]), SNS]));
}

#[test]
fn every_opcode_is_read_back_and_belongs_to_one_end() {
    for opcode in Opcode::ALL {
        assert_eq!(Opcode::from_byte(opcode as u8), Some(opcode));
        assert_eq!(Opcode::from_byte(opcode as u8 | IMMEDIATE), Some(opcode));
    }
    let known = (0..=0x3f).filter(|b| Opcode::from_byte(*b).is_some()).count();
    assert_eq!(known, Opcode::ALL.len());
    assert!(Opcode::R2t.is_from_target() && !Opcode::Snack.is_from_target());
}

#[test]
fn lengths_are_24_bits_and_padded_to_four() {
    assert_eq!(length(length_bytes(0x0001_0203)), 0x0001_0203);
    assert_eq!(length(length_bytes(usize::MAX)), MAX_DATA_SEGMENT);
    assert_eq!([0, 1, 2, 3, 4, 5].map(padding), [0, 3, 2, 1, 0, 3]);
}
