//! The published vectors at cipher level, and whole packets through sealer and opener.

use proptest::prelude::*;

use super::cipher::{Cipher, Cm, Gcm};
use super::keys::MasterKey;
use super::*;
use crate::limits::SRTP_CONTEXTS_PER_TRANSPORT_MAX;

/// Bytes written as hex digits, blanks ignored.
pub(super) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<char> = digits.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

const KEY_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SALT: &str = "517569642070726f2071756f";
const RTP_CLEAR: &str = "8040f17b 8041f8d3 5501a0b2";
const RTP_BODY: &str = "47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 \
                        73207472 6573";

#[test]
fn gcm_rtp_is_that_of_rfc_7714_16() {
    for (key_bytes, sealed) in [
        (
            16,
            "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf \
             8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            32,
            "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 \
             b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ] {
        let (sealed, plain) = (hex(sealed), hex(RTP_BODY));
        let gcm = Gcm::new(&hex(KEY_256)[..key_bytes], hex(SALT).try_into().unwrap());
        let id = (0x5501_a0b2, 0xf17b);
        let mut out = vec![0; sealed.len()];
        let body = RtpBody { payload: &plain, ..RtpBody::default() };
        gcm.seal(id, &hex(RTP_CLEAR), &body, &mut out).unwrap();
        assert_eq!(out, sealed);
        let mut opened = vec![0; plain.len()];
        gcm.open(id, &hex(RTP_CLEAR), &sealed, &mut opened).unwrap();
        assert_eq!(opened, plain);
    }
}

#[test]
fn gcm_rtcp_is_that_of_rfc_7714_17_1() {
    let clear = hex("81c8000d 4d617273");
    let plain = hex("4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef \
                     deadbeef deadbeef deadbeef");
    let sealed = hex("63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda \
                      4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade");
    let gcm = Gcm::new(&hex(KEY_256)[..16], hex(SALT).try_into().unwrap());
    let aad = seal::rtcp_aad(&clear, 0x8000_05d4u32.to_be_bytes());
    let mut out = vec![0; sealed.len()];
    let body = RtpBody { payload: &plain, ..RtpBody::default() };
    gcm.seal((0x4d61_7273, 0x5d4), &aad, &body, &mut out).unwrap();
    assert_eq!(out, sealed);
}

#[test]
fn the_counter_mode_keystream_is_that_of_rfc_3711_appendix_b_2() {
    let key = hex("2B7E151628AED2A6ABF7158809CF4F3C").try_into().unwrap();
    let salt = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let mut keystream = [0; 48];
    Cm::new(&key, &[0; 20], salt).apply((0, 0), &mut keystream).unwrap();
    assert_eq!(
        keystream.as_slice(),
        hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB \
             41E95B3BB0A2E8DD477901E4FCA894C0")
    );
}

/// Both ends of one transport: what `us` seals, `them` opens.
fn ends(profile: SrtpProfile) -> (SrtpSealer, SrtpOpener) {
    let material: Vec<u8> = (0u8..).take(profile.material_bytes()).collect();
    let us = SrtpKeys::from_dtls(profile, &material, false).unwrap();
    let them = SrtpKeys::from_dtls(profile, &material, true).unwrap();
    (SrtpSealer::new(&us), SrtpOpener::new(&them))
}

#[test]
fn counter_mode_packets_are_those_other_implementations_send() {
    // Whole packets from master key to tag, as libsrtp validates itself with.
    let key = hex("e1f97a0d3e018be0d64fa32c06de4139");
    let salt = hex("0ec675ad498afeebb6960b3aabe6");
    let material = [key.clone(), key, salt.clone(), salt].concat();
    let keys = SrtpKeys::from_dtls(SrtpProfile::Aes128CmSha1_80, &material, true).unwrap();
    let mut sealer = SrtpSealer::new(&keys);

    let mut out = hex("800f1234 decafbad cafebabe");
    out.resize(100, 0);
    let body = RtpBody { payload: &[0xab; 16], ..RtpBody::default() };
    let len = sealer.seal_rtp(0x1234, 12, &body, &mut out).unwrap();
    assert_eq!(
        out[..len],
        hex("800f1234 decafbad cafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb")
    );

    let mut rtcp = hex("81c8000b cafebabe");
    rtcp.resize(24, 0xab);
    let len = sealer.seal_rtcp(&rtcp, &mut out).unwrap();
    assert_eq!(
        out[..len],
        hex("81c8000b cafebabe 7128035be487b9bdbef89041f977a5a8 80000001 993e08cd54d6c1230798")
    );
}

fn header(seq: u16, ssrc: u32) -> Vec<u8> {
    let mut header = vec![0x80, 96];
    header.extend(seq.to_be_bytes());
    header.extend([0, 0, 0, 1]);
    header.extend(ssrc.to_be_bytes());
    header
}

fn seal(sealer: &SrtpSealer, index: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = header(u16::try_from(index & 0xffff).unwrap(), 7);
    out.resize(1500, 0xee);
    let body = RtpBody { payload, ..RtpBody::default() };
    let len = sealer.seal_rtp(index, 12, &body, &mut out).unwrap();
    out.truncate(len);
    out
}

#[test]
fn what_is_sealed_opens_for_every_profile_body_and_header() {
    for profile in SrtpProfile::ALL {
        let (sealer, opener) = ends(profile);
        let mut context = OpenContext::default();
        let mut index = 65_500;
        for payload_len in [0, 1, 15, 16, 17, 100, 1180] {
            let payload: Vec<u8> = (0..251).cycle().take(payload_len).collect();
            for (prefix, padding) in [(&[][..], 0), (&[], 5), (&[1, 2], 0), (&[1, 2], 255)] {
                index += 7;
                let mut out = header(u16::try_from(index & 0xffff).unwrap(), 99);
                out[0] = 0x90;
                out.extend([0xbe, 0xde, 0, 1, 0x10, 7, 0, 0]);
                let header = out.clone();
                let body = RtpBody { prefix, payload: &payload, padding, padded: false };
                let len = header.len() + body.len() + profile.rtp_overhead_bytes();
                out.resize(len, 0xee);
                assert_eq!(sealer.seal_rtp(index, 20, &body, &mut out), Some(len));
                assert_eq!(out[1..20], header[1..20]);
                assert_eq!(out[0], if padding > 0 { 0xb0 } else { 0x90 });
                assert!(payload_len < 16 || !out.windows(16).any(|w| payload.starts_with(w)));

                let mut opened = vec![0; body.len()];
                let result = opener.open_rtp(&mut context, &out, 20, &mut opened);
                assert_eq!(result, Ok(Opened { index, len: body.len() }), "{profile:?}");
                let mut expected = [prefix, &payload].concat();
                if padding > 0 {
                    expected.extend(vec![0; usize::from(padding) - 1]);
                    expected.push(padding);
                }
                assert_eq!(opened, expected);
                assert_eq!(
                    sealer.seal_rtp(index, 20, &body, &mut out[..len - 1]),
                    None,
                    "one byte short"
                );
            }
        }
    }
}

#[test]
fn a_sealer_refuses_an_index_that_is_not_the_headers() {
    let (sealer, _) = ends(SrtpProfile::AeadAes128Gcm);
    let mut out = header(5, 1);
    out.resize(100, 0);
    for (index, sealed) in [(5, true), (0x3_0005, true), (6, false), ((1 << 48) + 5, false)] {
        let result = sealer.seal_rtp(index, 12, &RtpBody::default(), &mut out);
        assert_eq!(result.is_some(), sealed, "{index:#x}");
    }
    assert_eq!(sealer.seal_rtp(5, 11, &RtpBody::default(), &mut out), None);
    assert_eq!(sealer.seal_rtp(5, 101, &RtpBody::default(), &mut out), None);
}

#[test]
fn a_changed_bit_anywhere_is_refused_and_harms_nothing() {
    for profile in SrtpProfile::ALL {
        let (mut sealer, mut opener) = ends(profile);
        let sealed = seal(&sealer, 40_000, b"some payload");
        let mut context = OpenContext::default();
        let mut out = [0; 1500];
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                opener.open_rtp(&mut context, &changed, 12, &mut out),
                Err(OpenError::Authentication),
                "{profile:?} bit {bit}"
            );
        }
        assert_eq!(context, OpenContext::default());
        assert!(opener.open_rtp(&mut context, &sealed, 12, &mut out).is_ok());

        let mut rtcp = [0; 100];
        let len = sealer.seal_rtcp(&[0x81; 28], &mut rtcp).unwrap();
        for bit in 0..len * 8 {
            let mut changed = rtcp[..len].to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                opener.open_rtcp(&changed, &mut out),
                Err(OpenError::Authentication),
                "{profile:?} bit {bit}"
            );
        }
        assert_eq!(opener.open_rtcp(&rtcp[..len], &mut out), Ok(28));
    }
}

#[test]
fn a_packet_opens_once_and_not_when_it_is_older_than_the_window() {
    for profile in SrtpProfile::ALL {
        let (sealer, opener) = ends(profile);
        let mut context = OpenContext::default();
        let mut out = [0; 1500];
        let mut open = |index| {
            opener
                .open_rtp(&mut context, &seal(&sealer, index, b"x"), 12, &mut out)
                .map(|o| o.index)
        };
        for (index, result) in [
            (50_000, Ok(50_000)),
            (50_000, Err(OpenError::Replayed)),
            (50_003, Ok(50_003)),
            (50_001, Ok(50_001)),
            (50_001, Err(OpenError::Replayed)),
            (50_003 - 1023, Ok(50_003 - 1023)),
            (50_003 - 1024, Err(OpenError::Replayed)),
            (51_500, Ok(51_500)),
            (50_003, Err(OpenError::Replayed)),
        ] {
            assert_eq!(open(index), result, "{profile:?} {index}");
        }
    }
}

#[test]
fn a_stream_is_followed_over_rollovers_in_whatever_order_it_starts() {
    for profile in SrtpProfile::ALL {
        for arrivals in [
            &[65_534u64, 65_535, 65_536, 65_537][..],
            // The first packets were lost, or overtaken by those behind the wrap.
            &[65_538, 65_539],
            &[65_536, 65_535, 65_534, 65_537],
            &[65_535, 65_537, 65_536, 65_534],
            // Jumps of less than half a turn, over two more wraps.
            &[10, 32_000, 64_000, 96_000, 128_000, 160_000, 159_999, 131_000 + 29_500],
            // A jump ahead while the counter is still 0.
            &[3, 40_000, 40_001, 70_000],
            // More than half a turn was lost, once nearly a whole one, and what comes late behind it.
            &[70_000, 105_000, 169_500, 169_499, 205_000, 205_002, 205_001],
        ] {
            let (sealer, opener) = ends(profile);
            let mut context = OpenContext::default();
            let mut out = [0; 1500];
            for &index in arrivals {
                let sealed = seal(&sealer, index, b"payload");
                let opened = opener.open_rtp(&mut context, &sealed, 12, &mut out);
                assert_eq!(opened, Ok(Opened { index, len: 7 }), "{profile:?} {arrivals:?}");
                assert_eq!(&out[..7], b"payload");
            }
            assert_eq!(context.highest(), arrivals.iter().max().copied());
        }
    }
}

#[test]
fn rtcp_opens_once_per_sender_and_index() {
    for profile in SrtpProfile::ALL {
        let (mut sealer, mut opener) = ends(profile);
        let packets: Vec<(Vec<u8>, Vec<u8>)> = (0..200u8)
            .map(|i| {
                let plain =
                    [vec![0x80, 201, 0, 1, 0, 0, 0, i % 2], vec![i; usize::from(i)]].concat();
                let mut sealed = vec![0; plain.len() + profile.rtcp_overhead_bytes()];
                assert_eq!(sealer.seal_rtcp(&plain, &mut sealed), Some(sealed.len()));
                (plain, sealed)
            })
            .collect();
        let mut out = [0; 500];
        for (at, result) in [
            (0, Ok(())),
            (0, Err(OpenError::Replayed)),
            (3, Ok(())),
            (1, Ok(())),
            (1, Err(OpenError::Replayed)),
            (2, Ok(())),
            (199, Ok(())),
            (5, Err(OpenError::Replayed)),
            (6, Ok(())),
        ] {
            let (plain, sealed) = &packets[at];
            let opened = opener.open_rtcp(sealed, &mut out);
            assert_eq!(opened.map(|len| out[..len].to_vec()), result.map(|()| plain.clone()));
        }
        let (_, mut unencrypted) = packets[100].clone();
        let flag = unencrypted.len() - if profile == SrtpProfile::Aes128CmSha1_80 { 14 } else { 4 };
        unencrypted[flag] &= 0x7f;
        assert_eq!(opener.open_rtcp(&unencrypted, &mut out), Err(OpenError::Authentication));
    }
}

#[test]
fn more_rtcp_senders_than_windows_are_still_heard() {
    let (mut sealer, mut opener) = ends(SrtpProfile::AeadAes128Gcm);
    let mut out = [0; 100];
    let mut seal = |ssrc: u32| {
        let mut sealed = vec![0; 100];
        let plain = [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes()].concat();
        let len = sealer.seal_rtcp(&plain, &mut sealed).unwrap();
        sealed.truncate(len);
        sealed
    };
    let busy = seal(0);
    assert_eq!(opener.open_rtcp(&busy, &mut out), Ok(8));
    for ssrc in 1..=2 * u32::try_from(SRTP_CONTEXTS_PER_TRANSPORT_MAX).unwrap() {
        assert_eq!(opener.open_rtcp(&seal(ssrc), &mut out), Ok(8));
        assert_eq!(opener.open_rtcp(&seal(0), &mut out), Ok(8));
    }
    assert_eq!(opener.open_rtcp(&busy, &mut out), Err(OpenError::Replayed), "never evicted");
}

#[test]
fn rtp_and_rtcp_of_both_directions_have_different_keys() {
    for profile in SrtpProfile::ALL {
        let master = MasterKey::new(&[1; 16], &[2; 12]).unwrap();
        let profile = if profile == SrtpProfile::AeadAes256Gcm {
            SrtpProfile::AeadAes128Gcm
        } else {
            profile
        };
        let sealed = [cipher::Kind::Rtp, cipher::Kind::Rtcp].map(|kind| {
            let mut out = [0; 32];
            match Cipher::derive(profile, &master, kind) {
                Cipher::Gcm(gcm) => {
                    let body = RtpBody { payload: &[0; 16], ..RtpBody::default() };
                    gcm.seal((1, 1), &[], &body, &mut out).unwrap();
                }
                Cipher::Cm(cm) => cm.apply((1, 1), &mut out).unwrap(),
            }
            out
        });
        assert_ne!(sealed[0], sealed[1]);
        // What we send does not open as what we receive.
        let (sealer, _) = ends(profile);
        let material: Vec<u8> = (0u8..).take(profile.material_bytes()).collect();
        let own = SrtpOpener::new(&SrtpKeys::from_dtls(profile, &material, false).unwrap());
        let result =
            own.open_rtp(&mut OpenContext::default(), &seal(&sealer, 1, b"x"), 12, &mut [0; 9]);
        assert_eq!(result, Err(OpenError::Authentication));
    }
}

proptest! {
    #[test]
    fn openers_survive_any_bytes(
        packet in prop::collection::vec(any::<u8>(), 0..200),
        header_len in 0usize..220,
        out_len in 0usize..220,
    ) {
        for profile in SrtpProfile::ALL {
            let (mut sealer, mut opener) = ends(profile);
            let mut out = vec![0; out_len];
            let mut context = OpenContext::default();
            prop_assert!(opener.open_rtp(&mut context, &packet, header_len, &mut out).is_err());
            prop_assert_eq!(context, OpenContext::default());
            prop_assert!(opener.open_rtcp(&packet, &mut out).is_err());
            let fits = packet.len() >= 8 && packet.len() + profile.rtcp_overhead_bytes() <= out_len;
            prop_assert_eq!(sealer.seal_rtcp(&packet, &mut out).is_some(), fits);
            let body = RtpBody { payload: &packet, ..RtpBody::default() };
            let mut out = vec![0; out_len];
            let sealed = sealer.seal_rtp(0, header_len, &body, &mut out);
            prop_assert_eq!(
                sealed.is_some(),
                header_len >= 12 && header_len + body.len() + profile.rtp_overhead_bytes() <= out_len
            );
        }
    }

    #[test]
    fn any_packet_in_any_order_opens_once(
        start in 0u64..200_000,
        order in prop::collection::vec(0u64..300, 1..60),
    ) {
        let (sealer, opener) = ends(SrtpProfile::AeadAes128Gcm);
        // The context knows the counter, as after a stream's beginning.
        let mut context = OpenContext::default();
        let mut out = [0; 1500];
        context.window.accept(start);
        let mut seen = std::collections::BTreeSet::from([start]);
        for offset in order {
            let index = start + offset;
            let result =
                opener.open_rtp(&mut context, &seal(&sealer, index, &index.to_be_bytes()), 12, &mut out);
            if seen.insert(index) {
                prop_assert_eq!(result, Ok(Opened { index, len: 8 }));
                prop_assert_eq!(out[..8].to_vec(), index.to_be_bytes().to_vec());
            } else {
                prop_assert_eq!(result, Err(OpenError::Replayed));
            }
        }
    }
}
