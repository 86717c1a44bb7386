import asyncio

from main import Invoice, Order, main


def test_order_is_summed_up() -> None:
    assert asyncio.run(main(Order("tea", 2.5, 4))) == Invoice("tea", 10.0)


def test_one_is_ordered_unless_told_otherwise() -> None:
    assert asyncio.run(main(Order("tea", 2.5))) == Invoice("tea", 2.5)
