//! Byte vectors are laid out by hand from SPC-4 tables 436, 437 and 458, SBC-3 tables 160 and 173.

use proptest::prelude::*;

use super::*;
use crate::cdb::{Form, ModeSelect, ModeSense};
use crate::error::{ListError, ParseError};
use crate::units::{BlockCount, ByteCount};

fn data() -> ModeData {
    let control = Control {
        task_set_type: 1,
        descriptor_sense: true,
        log_saving_disabled: true,
        queue_algorithm: 1,
        queue_errors: QueueErrors::AbortNexus,
        interlock: UnitAttentionInterlock::Kept,
        write_protect: true,
        task_aborted_status: true,
        application_tag_owned: true,
        busy_timeout: 0x0102,
    };
    let caching = Caching { write_cache: true, read_cache_disabled: false };
    ModeData {
        write_protected: true,
        dpo_fua: true,
        block: Some(BlockDescriptor { blocks: BlockCount(0x0102_0304), block_bytes: 512 }),
        pages: vec![Page::Caching(caching), Page::Control(control)],
    }
}

/// The caching and control pages behind a short block descriptor.
const REST: [u8; 40] = [
    1, 2, 3, 4, 0, 0, 2, 0, // block descriptor
    0x88, 0x12, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // caching
    0x8a, 0x0a, 0x26, 0x16, 0x28, 0xc0, 0, 0, 1, 2, 0, 0, // control
];

#[test]
fn parameters_are_read_and_written_with_either_header() {
    let ten = ModeSense::current(PageId::ALL);
    let six = ModeSense { form: Form::Six, ..ten };
    let bytes = [&[0, 46, 0, 0x90, 0, 0, 0, 8][..], &REST].concat();
    assert_eq!(ModeData::parse(&ten, &bytes), Ok(data()));
    assert_eq!(data().to_bytes(Form::Ten, false), bytes);
    let bytes = [&[43, 0, 0x90, 8][..], &REST].concat();
    assert_eq!(ModeData::parse(&six, &bytes), Ok(data()));
    assert_eq!(data().to_bytes(Form::Six, false), bytes);
    let read = ModeData::parse(&six, &bytes).expect("mode data");
    assert_eq!(read.caching().map(|page| page.write_cache), Some(true));
    assert_eq!(read.control().map(|page| page.descriptor_sense), Some(true));
}

/// SPC-4 7.5.4: MODE DATA LENGTH, WP and PS are reserved in MODE SELECT.
#[test]
fn a_list_for_mode_select_has_its_reserved_fields_zero() {
    let list = data().to_bytes(Form::Ten, true);
    assert_eq!(list[..8], [0, 0, 0, 0, 0, 0, 0, 8]);
    assert_eq!((list[16], list[36]), (0x08, 0x0a));
    let command =
        ModeSelect { form: Form::Ten, page_format: true, save: false, list: ByteCount::of(&list).expect("short") };
    let plain = ModeData { write_protected: false, dpo_fua: false, ..data() };
    assert_eq!(ModeData::parse_select(&command, &list), Ok(plain));
    assert_eq!(ModeData::parse_select(&command, &list[..list.len() - 1]), Err(ListError::Length));
    assert_eq!(ModeData::parse_select(&command, &[]), Ok(ModeData::default()));
}

#[test]
fn a_cut_answer_says_how_long_it_is() {
    let ten = ModeSense::current(PageId::ALL);
    let bytes = data().to_bytes(Form::Ten, false);
    for len in 8..bytes.len() {
        let cut = ModeData::parse(&ten, &bytes[..len]);
        assert_eq!(cut.map_err(|e| e.wanted(512)), Err(Some(bytes.len())), "{len}");
    }
    let mut wrong = bytes;
    wrong[17] = 200;
    assert!(matches!(ModeData::parse(&ten, &wrong), Err(ParseError::Overrun { .. })));
}

/// SPC-4 table 440 (sub_page format) and SBC-3 table 161 (long block descriptor).
#[test]
fn subpages_and_long_descriptors_are_read() {
    let bytes = [
        0, 32, 0, 0, 1, 0, 0, 16, // LONGLBA
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, // 2^32 blocks of 4096 bytes
        0x4a, 0x01, 0, 4, 9, 8, 7, 6, // control extension
        0x01, 0x00, // a page without a body
    ];
    let read = ModeData::parse(&ModeSense::current(PageId::ALL_SUBPAGES), &bytes).expect("mode data");
    assert_eq!(read.block, Some(BlockDescriptor { blocks: BlockCount(1 << 32), block_bytes: 4096 }));
    let ids: Vec<PageId> = read.pages.iter().map(Page::id).collect();
    assert_eq!(ids, [PageId { page: 0x0a, subpage: 1 }, PageId { page: 1, subpage: 0 }]);
}

proptest! {
    #[test]
    fn any_answer_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), six: bool, len: u8) {
        let mut bytes = bytes;
        let form = if six { Form::Six } else { Form::Ten };
        if let Some(head) = bytes.get_mut(..8) {
            let descriptors = len & 8;
            head.copy_from_slice(&if six { [len, 0, 0, descriptors, 0, 0, 0, 0] } else { [0, len, 0, 0, 0, 0, 0, descriptors] });
        }
        let sense = ModeSense { form, ..ModeSense::current(PageId::ALL) };
        if let Ok(data) = ModeData::parse(&sense, &bytes) {
            prop_assert!(data.pages.len() <= bytes.len());
        }
        let select = ModeSelect { form, page_format: true, save: false, list: ByteCount(0) };
        let _ = ModeData::parse_select(&select, &bytes);
    }
}
