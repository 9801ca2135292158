from .compile import Outcome as Outcome, judge as judge
