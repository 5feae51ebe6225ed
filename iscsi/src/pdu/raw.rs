//! The 48 bytes of each kind of PDU (RFC 7143, 11.3 to 11.19; field names after the RFC's figures).
//!
//! Every struct is its figure read top down. `new` fills in what never varies (opcode, the bits that must be set);
//! reserved bytes are zero. Numbers are big-endian on the wire.

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BHS_LEN, Bhs, FINAL, IMMEDIATE, Opcode, length, length_bytes};

macro_rules! pdu {
    ($(#[$doc:meta])* $name:ident, $op:expr, $first:expr, $flags:expr, { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name {
            /// Immediate bit and opcode.
            pub opcode: u8,
            /// Flags; see the constants of this kind.
            pub flags: u8,
            $($(#[$fdoc])* pub $field: $ty,)*
        }

        const _: () = assert!(size_of::<$name>() == BHS_LEN);

        impl Default for $name {
            /// Opcode and constant bits set, everything else zero.
            fn default() -> $name {
                let mut bytes = [0; BHS_LEN];
                bytes[0] = $op as u8 | $first;
                bytes[1] = $flags;
                zerocopy::transmute!(bytes)
            }
        }

        impl $name {
            /// Its opcode.
            pub const OPCODE: Opcode = $op;

            /// A header seen as this kind. The caller has looked at its opcode.
            pub fn of(bhs: &Bhs) -> $name {
                zerocopy::transmute!(*bhs)
            }

            /// The header.
            pub fn bhs(&self) -> Bhs {
                zerocopy::transmute!(*self)
            }

            /// Bytes of data segment.
            pub fn data_segment(&self) -> u32 {
                length(self.data_len)
            }

            /// The same with a data segment of so many bytes.
            #[must_use]
            pub fn with_data(mut self, len: usize) -> $name {
                self.data_len = length_bytes(len);
                self
            }
        }
    };
}

pdu!(
    /// SCSI command (11.3).
    ScsiCommand, Opcode::ScsiCommand, 0, 0, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of immediate data.
        data_len: [u8; 3],
        /// The logical unit.
        lun: [u8; 8],
        /// Its tag.
        itt: U32,
        /// Bytes the initiator expects to be moved.
        expected_len: U32,
        /// Its place in the session.
        cmd_sn: U32,
        /// The next status expected.
        exp_stat_sn: U32,
        /// The first 16 bytes of the CDB.
        cdb: [u8; 16],
    }
);

impl ScsiCommand {
    /// Data goes to the initiator.
    pub const READ: u8 = 0x40;
    /// Data goes to the target.
    pub const WRITE: u8 = 0x20;
    /// No unsolicited Data-Out follows.
    pub const FINAL: u8 = FINAL;
    /// Task attribute SIMPLE.
    pub const SIMPLE: u8 = 1;
}

pdu!(
    /// SCSI response (11.4).
    ScsiResponse, Opcode::ScsiResponse, 0, FINAL, {
        /// 0: completed at target; 1: target failure; from 0x80: vendor's.
        response: u8,
        /// SCSI status, if completed.
        status: u8,
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of sense length and sense.
        data_len: [u8; 3],
        /// Reserved.
        reserved: [u8; 8],
        /// The task.
        itt: U32,
        /// SNACK tag.
        snack_tag: U32,
        /// Its place in the connection.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// Data-In PDUs and R2Ts that were sent for this task.
        exp_data_sn: U32,
        /// Residual of a bidirectional command's read.
        bidi_residual: U32,
        /// Bytes not moved, or that would have been moved beyond.
        residual: U32,
    }
);

impl ScsiResponse {
    /// More would have been moved than was expected.
    pub const OVERFLOW: u8 = 0x04;
    /// Less was moved than was expected.
    pub const UNDERFLOW: u8 = 0x02;
}

pdu!(
    /// Task management request (11.5). Always immediate here.
    TaskRequest, Opcode::TaskRequest, IMMEDIATE, FINAL, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Always 0.
        data_len: [u8; 3],
        /// The logical unit.
        lun: [u8; 8],
        /// Its own tag.
        itt: U32,
        /// The tag of the task it is about; [`crate::ids::Itt::NONE`] if of none.
        ref_task: U32,
        /// Its place in the session.
        cmd_sn: U32,
        /// The next status expected.
        exp_stat_sn: U32,
        /// The command number of the task it is about.
        ref_cmd_sn: U32,
        /// The next data number expected (reassignment only).
        exp_data_sn: U32,
        /// Reserved.
        reserved2: [u8; 8],
    }
);

pdu!(
    /// Task management response (11.6).
    TaskResponse, Opcode::TaskResponse, 0, FINAL, {
        /// 0: function complete; others: see [`crate::session::TaskAnswer`].
        response: u8,
        /// Reserved.
        reserved: u8,
        /// Additional header segments in words.
        ahs_words: u8,
        /// Always 0.
        data_len: [u8; 3],
        /// Reserved.
        reserved2: [u8; 8],
        /// The request's tag.
        itt: U32,
        /// Reserved.
        reserved3: U32,
        /// Its place in the connection.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// Reserved.
        reserved4: [u8; 12],
    }
);

pdu!(
    /// Data-Out (11.7).
    DataOut, Opcode::DataOut, 0, 0, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of data.
        data_len: [u8; 3],
        /// The logical unit.
        lun: [u8; 8],
        /// The task.
        itt: U32,
        /// The R2T it answers; [`crate::ids::Ttt::NONE`] if unsolicited.
        ttt: U32,
        /// Reserved.
        reserved2: U32,
        /// The next status expected.
        exp_stat_sn: U32,
        /// Reserved.
        reserved3: U32,
        /// Its place in the sequence.
        data_sn: U32,
        /// Where in the task's data it belongs.
        buffer_offset: U32,
        /// Reserved.
        reserved4: U32,
    }
);

pdu!(
    /// Data-In (11.7).
    DataIn, Opcode::DataIn, 0, 0, {
        /// Reserved.
        reserved: u8,
        /// SCSI status, if the S bit is set.
        status: u8,
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of data.
        data_len: [u8; 3],
        /// The logical unit, if the A bit is set.
        lun: [u8; 8],
        /// The task.
        itt: U32,
        /// Target transfer tag, if the A bit is set.
        ttt: U32,
        /// Its place in the connection, if the S bit is set.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// Its place in the task.
        data_sn: U32,
        /// Where in the task's data it belongs.
        buffer_offset: U32,
        /// Residual, if the S bit is set.
        residual: U32,
    }
);

impl DataIn {
    /// The last of its sequence.
    pub const FINAL: u8 = FINAL;
    /// An acknowledgement is asked for (recovery levels above 0).
    pub const ACKNOWLEDGE: u8 = 0x40;
    /// More would have been moved than was expected.
    pub const OVERFLOW: u8 = 0x04;
    /// Less was moved than was expected.
    pub const UNDERFLOW: u8 = 0x02;
    /// Status is in it: the task has ended.
    pub const STATUS: u8 = 0x01;
}

pdu!(
    /// Ready to transfer (11.8).
    R2t, Opcode::R2t, 0, FINAL, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Always 0.
        data_len: [u8; 3],
        /// The logical unit.
        lun: [u8; 8],
        /// The task.
        itt: U32,
        /// What the Data-Outs must carry.
        ttt: U32,
        /// The next status that will be sent.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// Its place in the task.
        r2t_sn: U32,
        /// From where.
        buffer_offset: U32,
        /// How much.
        desired_len: U32,
    }
);

pdu!(
    /// Asynchronous message (11.9).
    Async, Opcode::Async, 0, FINAL, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of sense and vendor's data.
        data_len: [u8; 3],
        /// The logical unit.
        lun: [u8; 8],
        /// All ones.
        itt: U32,
        /// Reserved.
        reserved2: U32,
        /// Its place in the connection.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// What it is.
        event: u8,
        /// Vendor's code.
        vendor_code: u8,
        /// Connection (event 2).
        parameter1: U16,
        /// Time2Wait (events 2, 3).
        parameter2: U16,
        /// Time2Retain (events 2, 3); seconds until a logout is due (event 1).
        parameter3: U16,
        /// Reserved.
        reserved3: U32,
    }
);

pdu!(
    /// Text request (11.10).
    TextRequest, Opcode::TextRequest, 0, FINAL, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of text.
        data_len: [u8; 3],
        /// The logical unit, if the tag is valid.
        lun: [u8; 8],
        /// Its tag.
        itt: U32,
        /// From the response that it continues; all ones for a first one.
        ttt: U32,
        /// Its place in the session.
        cmd_sn: U32,
        /// The next status expected.
        exp_stat_sn: U32,
        /// Reserved.
        reserved2: [u8; 16],
    }
);

pdu!(
    /// Text response (11.11).
    TextResponse, Opcode::TextResponse, 0, 0, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of text.
        data_len: [u8; 3],
        /// The logical unit, if the tag is valid.
        lun: [u8; 8],
        /// The request's tag.
        itt: U32,
        /// Not all ones: the answer goes on.
        ttt: U32,
        /// Its place in the connection.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// Reserved.
        reserved2: [u8; 12],
    }
);

/// The text goes on in the next PDU (login and text).
pub const CONTINUE: u8 = 0x40;
/// The sender is ready to leave its stage (login).
pub const TRANSIT: u8 = FINAL;

pdu!(
    /// Login request (11.12). Always immediate.
    LoginRequest, Opcode::LoginRequest, IMMEDIATE, 0, {
        /// Highest version.
        version_max: u8,
        /// Lowest version.
        version_min: u8,
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of text.
        data_len: [u8; 3],
        /// The initiator's part of the session's name.
        isid: [u8; 6],
        /// The target's part; 0 for a new session.
        tsih: U16,
        /// Its tag: the same for the whole login.
        itt: U32,
        /// The connection.
        cid: U16,
        /// Reserved.
        reserved: U16,
        /// The first command number.
        cmd_sn: U32,
        /// The next status expected.
        exp_stat_sn: U32,
        /// Reserved.
        reserved2: [u8; 16],
    }
);

pdu!(
    /// Login response (11.13).
    LoginResponse, Opcode::LoginResponse, 0, 0, {
        /// Highest version.
        version_max: u8,
        /// The version in force.
        version_active: u8,
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of text.
        data_len: [u8; 3],
        /// The initiator's part of the session's name.
        isid: [u8; 6],
        /// The target's part; set in the last response.
        tsih: U16,
        /// The request's tag.
        itt: U32,
        /// Reserved.
        reserved: U32,
        /// Its place in the connection; the first one begins the sequence.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// 0 success, 1 redirection, 2 initiator's error, 3 target's error.
        status_class: u8,
        /// Within the class.
        status_detail: u8,
        /// Reserved.
        reserved2: [u8; 10],
    }
);

pdu!(
    /// Logout request (11.14). Immediate here.
    LogoutRequest, Opcode::LogoutRequest, IMMEDIATE, FINAL, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Always 0.
        data_len: [u8; 3],
        /// Reserved.
        reserved2: [u8; 8],
        /// Its tag.
        itt: U32,
        /// The connection.
        cid: U16,
        /// Reserved.
        reserved3: U16,
        /// Its place in the session.
        cmd_sn: U32,
        /// The next status expected.
        exp_stat_sn: U32,
        /// Reserved.
        reserved4: [u8; 16],
    }
);

pdu!(
    /// Logout response (11.15).
    LogoutResponse, Opcode::LogoutResponse, 0, FINAL, {
        /// 0: closed; 1: no such connection; 2: recovery not supported; 3: cleanup failed.
        response: u8,
        /// Reserved.
        reserved: u8,
        /// Additional header segments in words.
        ahs_words: u8,
        /// Always 0.
        data_len: [u8; 3],
        /// Reserved.
        reserved2: [u8; 8],
        /// The request's tag.
        itt: U32,
        /// Reserved.
        reserved3: U32,
        /// Its place in the connection.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// Reserved.
        reserved4: U32,
        /// Seconds until a new login may be tried.
        time2wait: U16,
        /// Seconds for which tasks are kept.
        time2retain: U16,
        /// Reserved.
        reserved5: U32,
    }
);

pdu!(
    /// SNACK request (11.16). Read by a target that refuses it; never sent at recovery level 0.
    Snack, Opcode::Snack, 0, FINAL, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Always 0.
        data_len: [u8; 3],
        /// The logical unit.
        lun: [u8; 8],
        /// The task.
        itt: U32,
        /// Target transfer tag or SNACK tag.
        ttt: U32,
        /// Reserved.
        reserved2: U32,
        /// The next status expected.
        exp_stat_sn: U32,
        /// Reserved.
        reserved3: [u8; 8],
        /// The first of the run.
        begin: U32,
        /// How many.
        run: U32,
    }
);

pdu!(
    /// Reject (11.17).
    Reject, Opcode::Reject, 0, FINAL, {
        /// Why.
        reason: u8,
        /// Reserved.
        reserved: u8,
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of the header that was refused.
        data_len: [u8; 3],
        /// Reserved.
        reserved2: [u8; 8],
        /// All ones.
        itt: U32,
        /// Reserved.
        reserved3: U32,
        /// Its place in the connection.
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// Data number or R2T number.
        data_sn: U32,
        /// Reserved.
        reserved4: [u8; 8],
    }
);

pdu!(
    /// NOP-Out (11.18). Always immediate here.
    NopOut, Opcode::NopOut, IMMEDIATE, FINAL, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of ping data.
        data_len: [u8; 3],
        /// As in the NOP-In that it answers.
        lun: [u8; 8],
        /// Its tag; all ones for an answer.
        itt: U32,
        /// As in the NOP-In that it answers; all ones for a ping.
        ttt: U32,
        /// Its place in the session.
        cmd_sn: U32,
        /// The next status expected.
        exp_stat_sn: U32,
        /// Reserved.
        reserved2: [u8; 16],
    }
);

pdu!(
    /// NOP-In (11.19).
    NopIn, Opcode::NopIn, 0, FINAL, {
        /// Reserved.
        reserved: [u8; 2],
        /// Additional header segments in words.
        ahs_words: u8,
        /// Bytes of ping data.
        data_len: [u8; 3],
        /// The logical unit of a ping.
        lun: [u8; 8],
        /// The ping it answers; all ones for a ping or a mere update of the window.
        itt: U32,
        /// Not all ones: an answer is wanted.
        ttt: U32,
        /// Its place in the connection (the next one's, if `itt` is all ones).
        stat_sn: U32,
        /// The next command expected.
        exp_cmd_sn: U32,
        /// The last command that may be sent.
        max_cmd_sn: U32,
        /// Reserved.
        reserved2: [u8; 12],
    }
);
