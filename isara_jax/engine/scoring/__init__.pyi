from .likelihood import Scored as Scored, score as score
