from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from domain.customer import decide_register, decide_update, evolve
from orderstream.customers.v1.commands_pb2 import RegisterCustomerRequest, UpdateCustomerRequest
from orderstream.customers.v1.customer_pb2 import Customer
from orderstream.customers.v1.events_pb2 import CustomerRegistered, CustomerUpdated
from tests.unit.domain.scenario import NOW, Scenario

ADA = CustomerRegistered(customer_id="c-1", name="Ada", email="ada@example.com", occur_time=NOW)
REGISTER = RegisterCustomerRequest(customer_id="c-1", name="Ada", email="ada@example.com")


def given(*past: CustomerRegistered | CustomerUpdated) -> Scenario[Customer]:
    return Scenario(Customer, evolve, *past)


def test_a_new_customer_is_registered_at_the_servers_time() -> None:
    customer = given().when(decide_register, REGISTER).then(ADA)
    assert (customer.name, customer.email, customer.create_time) == ("Ada", "ada@example.com", NOW)


def test_a_customer_from_the_past_keeps_the_time_that_the_import_names() -> None:
    past = Timestamp(seconds=852_076_800)
    command = RegisterCustomerRequest(customer_id="c-1", name="Ada", email="ada@example.com", occur_time=past)
    customer = (
        given()
        .when(decide_register, command)
        .then(CustomerRegistered(customer_id="c-1", name="Ada", email="ada@example.com", occur_time=past))
    )
    assert customer.create_time == past


def test_a_registered_id_is_not_registered_again() -> None:
    given(ADA).when(decide_register, REGISTER).then_rejected("CUSTOMER_ALREADY_EXISTS", customer_id="c-1")


def test_an_update_keeps_what_it_does_not_name() -> None:
    customer = (
        given(ADA)
        .when(decide_update, UpdateCustomerRequest(customer_id="c-1", name="Ada L."))
        .then(CustomerUpdated(customer_id="c-1", name="Ada L.", email="ada@example.com", occur_time=NOW))
    )
    assert customer.name == "Ada L."


def test_an_update_to_the_same_values_changes_nothing() -> None:
    given(ADA).when(decide_update, UpdateCustomerRequest(customer_id="c-1", name="Ada")).then_nothing()


def test_an_unknown_customer_is_not_updated() -> None:
    given().when(decide_update, UpdateCustomerRequest(customer_id="c-1", name="Ada")).then_rejected(
        "CUSTOMER_NOT_FOUND", customer_id="c-1"
    )
