"""The runtime's own lockdown: what its filter decides, on every architecture, and what is asked of a kernel."""

import errno
import struct

import pytest

from wirthforge_sdk.runtime.lockdown import ABSENT, REFUSED, handled_by, program_for

X86_64, AARCH64 = 0, 1
AUDIT_NAMES = (0xC000003E, 0xC00000B7)
PRCTL, CLONE, SOCKET = (157, 167), (56, 220), (41, 198)
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
NAMESPACES = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]

both = pytest.mark.parametrize("here", [X86_64, AARCH64])


def decided(program, number, *arguments, audit_name):
    """What the kernel's machine of linux/filter.h would return."""
    data = struct.pack("<iIQ6Q", number, audit_name, 0, *arguments, *[0] * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, constant = instructions[at]
        at += 1
        match code:
            case 0x20:
                [accumulator] = struct.unpack_from("<I", data, constant)
            case 0x06:
                return constant
            case _:
                holds = {
                    0x15: accumulator == constant,
                    0x35: accumulator >= constant,
                    0x45: accumulator & constant != 0,
                }
                at += if_true if holds[code] else if_false


def decision(here, number, *arguments, with_network=False):
    program = program_for(here, with_network=with_network)
    return decided(program, number, *arguments, audit_name=AUDIT_NAMES[here])


@both
def test_what_leads_out_of_a_sandbox_is_refused(here):
    assert {name: decision(here, numbers[here]) for name, numbers in REFUSED.items()} == dict.fromkeys(
        REFUSED, EPERM
    )


@both
def test_what_no_filter_could_see_seems_not_to_exist(here):
    assert {name: decision(here, numbers[here]) for name, numbers in ABSENT.items()} == dict.fromkeys(
        ABSENT, ENOSYS
    )


@both
def test_every_other_call_is_left_to_the_sandboxs_own_profile(here):
    known = {numbers[here] for numbers in (*REFUSED.values(), *ABSENT.values(), SOCKET)}
    assert {decision(here, number) for number in range(600) if number not in known} == {ALLOW}


@both
@pytest.mark.parametrize("flag", NAMESPACES)
def test_a_child_gets_no_new_namespace(here, flag):
    assert decision(here, CLONE[here], flag | 17) == EPERM


@both
def test_a_child_and_a_thread_may_be_made(here):
    assert {decision(here, CLONE[here], flags) for flags in (17, 0x01200011, 0x003D0F00)} == {ALLOW}


@both
@pytest.mark.parametrize("high", [0, 1 << 32])
def test_nobody_makes_himself_dumpable_again(here, high):
    # The kernel looks at 32 bits of the option.
    assert decision(here, PRCTL[here], high | 4, 1) == EPERM
    assert {decision(here, PRCTL[here], option) for option in range(80) if option != 4} == {ALLOW}


@both
@pytest.mark.parametrize(("with_network", "families"), [(False, {1}), (True, {1, 2, 10})])
def test_sockets_are_of_the_families_that_were_asked_for(here, with_network, families):
    made = {
        family
        for family in range(64)
        if decision(here, SOCKET[here], family, with_network=with_network) == ALLOW
    }
    assert made == families


@both
def test_calls_through_another_architecture_are_deadly(here):
    program = program_for(here, with_network=True)
    for other in (AUDIT_NAMES[1 - here], 0x40000003, 0):
        assert decided(program, 39, audit_name=other) == KILL
    assert decision(here, 0x40000000 | 39) == KILL


@pytest.mark.parametrize(
    ("abi", "handled"),
    [
        (2, (0x3FFF, 0, 0)),
        (3, (0x7FFF, 0, 0)),
        (4, (0x7FFF, 3, 0)),
        (5, (0xFFFF, 3, 0)),
        (6, (0xFFFF, 3, 3)),
        (7, (0xFFFF, 3, 3)),
        (99, (0xFFFF, 3, 3)),
    ],
)
def test_no_more_is_asked_of_a_kernel_than_its_abi_knows(abi, handled):
    assert handled_by(abi) == handled
