from .compile import Outcome as Outcome, compile_and_check as compile_and_check
